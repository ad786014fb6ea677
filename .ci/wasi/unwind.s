# Symbols that the standard library needs from a C toolchain for WASI in order to unwind, and that Debian's wasi-libc lacks: the tag of
# exceptions that are panics, functions that throw and drop one, and the functions of threads, none of which can be started.

	.globl	__cpp_exception
	.tagtype	__cpp_exception i32
__cpp_exception:

	.globl	_Unwind_RaiseException
	.type	_Unwind_RaiseException,@function
_Unwind_RaiseException:
	.functype	_Unwind_RaiseException (i32) -> (i32)
	local.get	0
	throw	__cpp_exception
	end_function

	.globl	_Unwind_DeleteException
	.type	_Unwind_DeleteException,@function
_Unwind_DeleteException:
	.functype	_Unwind_DeleteException (i32) -> ()
	end_function

	.globl	pthread_attr_init
	.type	pthread_attr_init,@function
pthread_attr_init:
	.functype	pthread_attr_init (i32) -> (i32)
	i32.const	0
	end_function

	.globl	pthread_attr_setstacksize
	.type	pthread_attr_setstacksize,@function
pthread_attr_setstacksize:
	.functype	pthread_attr_setstacksize (i32, i32) -> (i32)
	i32.const	0
	end_function

	.globl	pthread_attr_destroy
	.type	pthread_attr_destroy,@function
pthread_attr_destroy:
	.functype	pthread_attr_destroy (i32) -> (i32)
	i32.const	0
	end_function

	.globl	pthread_create
	.type	pthread_create,@function
pthread_create:
	.functype	pthread_create (i32, i32, i32, i32) -> (i32)
	i32.const	58				# ENOTSUP
	end_function

	.globl	pthread_join
	.type	pthread_join,@function
pthread_join:
	.functype	pthread_join (i32, i32) -> (i32)
	unreachable
	end_function

	.globl	pthread_detach
	.type	pthread_detach,@function
pthread_detach:
	.functype	pthread_detach (i32) -> (i32)
	unreachable
	end_function
