// Package load is both ends of the traffic that the benchmarks send through a proxy: the server in the container and
// the clients beyond the host. A benchmark starts a fresh process of each for every measurement, "bench load".
//
// It must never be what is measured, so messages are exchanged by one event loop at either end: one thread,
// edge-triggered epoll, two system calls for a message that fits a socket buffer, no allocation and none of the Go
// scheduler's work. Streams have a goroutine for each direction of a connection. Datagrams are received and sent as
// many at a time as there are (recvmmsg, sendmmsg), and a stream of them is cut from blocks by the kernel (UDP_SEGMENT)
// at a fixed rate. Of the CPU time of a client 92% is the kernel's when 64 connections exchange messages of 64 bytes,
// and 3% are the instructions around a system call; datagrams of 200 bytes: 90%. Neither end does less than a program
// would: all that arrives is copied to user space.
//
// A client prints one JSON object on standard output: what it measured, by unit. The clock and the CPU times are read
// by the client itself, between the last byte of the warm-up and the first that counts, so that the rate and the CPU
// time belong to the same interval. The clock of latencies stands still meanwhile: nobody is there to take answers.
//
// Datagrams may be lost, so a client that has waited long enough for an answer counts the datagram as lost and asks
// again. Of a stream of them the server counts what arrives; the client does not wait for anything.
//
// A message is its own length and a number, 4 bytes each in network order, and whatever follows. The server waits for
// all of it and answers with a message of the same length and number; the client checks both. A datagram says how long
// its answer is to be.
//
// A message is not longer than 1 MiB, so its first byte is 0, and streams go through the same port. Their first byte
// says what to do with it: send (down), receive (up), both, or answer every byte, the first one too, with the numbers
// of bytes received and sent so far on all streams. This is how a client that sends learns what has arrived, which is
// not what it has sent: sockets hold megabytes.
package load
