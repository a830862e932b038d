// Package worker is the process that serves every port of a host: one for a network namespace, a user and a build of the
// program. dockerd starts a shim for each port (cmd/portsplice-shim), and the first shim starts the worker.
//
// # Rendezvous
//
// They meet at an abstract unix socket (SOCK_SEQPACKET), which exists in the network namespace only. Its name is
//
//	portsplice/1/UID/DEVICE-INODE-SECONDS.NANOSECONDS
//
// with the version of the messages, the user, and the file of the program and its time: a new build has a
// worker of its own, and the old one ends with its ports. The shim that can bind the name starts the worker with that
// socket as descriptor 3. Both ends check with SO_PEERCRED that the other's user is their own, or root. A shim
// hands nothing to a worker, and the worker serves nothing for a shim, that is seen to have another PID namespace, or has ended: root
// in a container with the host's network has another, but with --pid=host. Its questions are answered.
//
// Numbers are hexadecimal, here and below.
//
// # Messages
//
// A shim begins with strings that each end in a zero byte: a line "serve ARGUMENTS SOCKET", as many arguments, and the
// variables of the environment that begin with PORTSPLICE_. Along come its standard error, and the port's socket if it
// has one: SOCKET is 0 if it has none, 1 if dockerd bound it, 2 if a worker did that has died since, 3 if dockerd bound it and a
// worker that has died has served it. The answer is one of
//
//	0             the port is served; the port's socket comes along if the worker opened it
//	1 and reason  it cannot be served; both as dockerd is to be told
//	- and reason  the shim is to become the program that serves it alone
//
// Then the shim may say
//
//	stop      the port and its connections end: dockerd stops it
//	close     the port ends and its connections go on: dockerd has ended (SCTP's end where the socket is dockerd's)
//	counters  they are printed on the shim's standard error
//
// and the worker answers by closing the connection when that is done. If the shim closes it, that is "close". A worker
// that says 1 later on tells that the port has ended by itself.
//
// Whoever else connects says "list", "metrics", "stats", "clients MOST PROTOCOL FRONTEND", "options" or "reload" and is
// answered with one line of JSON (List, List with histograms, Totals, Clients, Options and Reload), in as many messages as it
// takes. SIGHUP is a reload, too.
//
// Whoever says "trace", or "trace" and a pattern of ports (config.ParsePattern), is told of connections and failures as they happen: by a
// line of JSON (Event) for each, which is a message, until one of the two closes the connection. Events that the other is
// too slow for are dropped, and it is told how many.
//
// # Descriptors
//
// RLIMIT_NOFILE is one budget for all ports. Go's runtime raises it to the hard limit at the start, and package budget has
// the rule by which a port that is flooded leaves some to the others.
package worker
