"""Like sgemm_peer, for a large square product."""

import sgemm_peer


class Peer(sgemm_peer.Peer):
    sizes = 2048, 2048, 2048
