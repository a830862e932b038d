// Package sourceport chooses the source ports of TCP connections to a backend while there are very many, and those of UDP
// (Pool).
//
// A proxy is the one that ends connections to the backend when clients end theirs, so it is left with the TIME_WAIT of
// each, for a minute. When the kernel chooses the source port of a connection it looks for one that has none towards
// this backend. Near 28,000 connections a minute that search takes milliseconds, and then there is no port left
// (moby#47537).
//
// A socket that was bound to a port before it connects is spared the search, and may take over a TIME_WAIT if timestamps
// are on, whatever tcp_tw_reuse says (__inet_check_established in net/ipv4/inet_hashtables.c calls tcp_twsk_unique
// without twp). So while many connections are made, ports are bound in turn: the next one is always the one that has
// rested longest.
//
// # The ports are the host's
//
// The kernel gives a port that is bound to nobody else, to whatever destination (__inet_hash_connect passes over ports
// that bind(2) has taken). So all processes bind from one and the same quarter of net.ipv4.ip_local_port_range, its last,
// and three quarters are left to everybody else, however many ports are busy. The same number serves different backends
// at the same time, because all sockets have SO_REUSEADDR, from when there are a quarter of many connections. Towards one
// backend the ports are counted and taken in turn for all loops and published ports of a process together. Two processes
// with the same backend begin at different places.
//
// That is so for what is bound. While a backend has few connections the kernel chooses their ports, as everybody's, from the
// whole range, and a socket that binds one on all addresses does not get those that they have left in TIME_WAIT.
//
// What is bound is the port at the address that the kernel chose for an earlier connection to the backend. With an
// unspecified address, connections of others from any address of the host would be in the way.
//
// # Sockets that keep their port
//
// UDP has no TIME_WAIT, and a socket of it keeps its port from everybody, also towards other destinations. Pool is for
// those: it is half of the range, and what it gives is bound without SO_REUSEADDR.
//
// # The range
//
// The range, and the ports that ip_local_reserved_ports keeps for services that begin later, are read again every second
// while ports are bound. Where a system does not tell, the kernel chooses.
package sourceport
