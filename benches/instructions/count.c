// A plugin for QEMU (https://www.qemu.org/docs/master/devel/tcg-plugins.html) that counts the instructions of AArch64 that a program
// executes, by kind:
//
//     cc -shared -fPIC -O2 count.c -o libcount.so
//     qemu-aarch64 -plugin ./libcount.so program
//
// It prints `{"instructions": …, "fma": …, …}` to stderr when the program ends. `count` beside it does both, for many programs.

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

// What is used of qemu-plugin.h, version 1 of the interface, which not every system packages.
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *, uint64_t);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

// Kinds of instructions by their bits, as the Arm Architecture Reference Manual has them. One may be of several kinds.
static const struct {
    const char *name;
    struct { uint32_t mask, bits; } encodings[4];
} kinds[] = {
    {"instructions", {{0, 0}}},
    {"fma", {{0xbfa0fc00, 0x0e20cc00}, {0xbf80f400, 0x0f801000}}},          // fmla, of vectors and by element
    {"by_element", {{0xbf80f400, 0x0f801000}}},
    // To vector registers: of one, of a pair, of lanes (also to all lanes), of several.
    {"loads", {{0x3f400000, 0x3d400000}, {0x3f400000, 0x3c400000}, {0x3e400000, 0x2c400000}, {0xbe400000, 0x0c400000}}},
    {"pairs", {{0x3e400000, 0x2c400000}}},                                   // of these, two registers at a time
    {"broadcasts", {{0xbf60e000, 0x0d40c000}, {0xbfe0fc00, 0x0e000400}}},   // ld1r, dup
    {"stores", {{0x3f400000, 0x3d000000}, {0x3f400000, 0x3c000000}, {0x3e400000, 0x2c000000}, {0xbe400000, 0x0c000000}}},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static uint64_t counts[KINDS];

static bool is(size_t kind, uint32_t word) {
    for (size_t i = 0; i < 4; ++i) {
        uint32_t mask = kinds[kind].encodings[i].mask, bits = kinds[kind].encodings[i].bits;
        if ((i == 0 || mask != 0) && (word & mask) == bits) {
            return true;
        }
    }
    return false;
}

// A block that QEMU translates is executed from its first instruction to its last, so its sums are added at once.
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    (void)id;
    uint64_t sums[KINDS] = {0};
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); ++i) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof word);
        for (size_t kind = 0; kind < KINDS; ++kind) {
            sums[kind] += is(kind, word);
        }
    }
    for (size_t kind = 0; kind < KINDS; ++kind) {
        if (sums[kind] > 0) {
            qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &counts[kind], sums[kind]);
        }
    }
}

static void ended(qemu_plugin_id_t id, void *data) {
    (void)id, (void)data;
    for (size_t kind = 0; kind < KINDS; ++kind) {
        fprintf(stderr, "%s\"%s\": %" PRIu64, kind == 0 ? "{" : ", ", kinds[kind].name, counts[kind]);
    }
    fprintf(stderr, "}\n");
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
