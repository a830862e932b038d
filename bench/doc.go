// Command bench measures what a proxy costs, against docker-proxy and against no proxy at all.
//
//	go run ./bench ratios                     rounds that alternate, and ratios: what decides
//	go run ./bench ratios -work pingpong,crr  some of the work; -rows splice,nginx: some of the proxies
//	go run ./bench ratios -loops 1,2          further rows of ours, splice@1 and so on, with as many event loops
//	go run ./bench compare OLD NEW            two builds of ours in such rounds, by benchstat: what to run before
//	                                          claiming a gain ("make compare" installs benchstat)
//	go run ./bench report DIRECTORY           from the results.json of "ratios -out": a page with tables and plots
//	go run ./bench profile -work crr          where the time goes, by "go tool pprof" (docs/profiling.md)
//	make bench                                every measurement once; it installs and builds what is compared
//	make bench-report SET=quick               ratios, published as a report with plots
//	make bench-sctp                           "bench sctp" on a kernel that has SCTP
//
// All but report take root, and Linux. They are one engine: Programs.Measure is one measurement, Rounds is a sequence
// of them, which alternate: in A A A B B B, what the machine does meanwhile would look like a difference between A and B.
//
// # Where it runs
//
//	namespace "client"     namespace "host"                               namespace "container"
//	+------------+         +--------------------------------------+       +-----------------+
//	| 198.18.0.2 |--veth---| 198.18.0.1:2000 (proxy)   198.18.1.1 |--veth-| 198.18.1.2:900  |
//	|            |         |                            (docker0) |       | (server)        |
//	+------------+         +--------------------------------------+       +-----------------+
//
// This is a Docker host: its clients come from elsewhere, and its containers are behind a bridge. "direct" is the
// client connected to 198.18.1.2, and the host forwards the packets: what the machine can do, and the check that client
// and server are not what is measured. No namespace has a way out.
//
// The client has 64,512 source ports, so that the search for a free one is not what is measured. The host has the
// kernel's usual 28,232: that search is the proxy's, and an operator's trouble (moby#47537, the work churn).
//
// TCP runs the kernel's default congestion control, cubic, in all three, whatever the machine is set to, unless the
// machine does not allow it (net.ipv4.tcp_allowed_congestion_control); a report says what was used. Over a veth there
// is no loss and no bottleneck to find, so BBR's pacing timers are what would be measured: with BBR one bulk flow
// through docker-proxy made 5.4 Gbit/s on the machine where it makes 26 with cubic.
//
// # What is compared
//
// Ours ("splice", "fallback" and "udp") and the references are started as dockerd starts them: "docker-proxy", moby's newest,
// which the Makefile pins and builds (bin/tools/docker-proxy), and "docker.io", what the distribution's package of that name
// has, which is as old as the Go that built it. What users pick instead comes from Debian's packages ("make bench" installs
// them): HAProxy with and without splice, nginx's stream module, systemd-socket-proxyd and socat. What is not installed
// has a row that says so, and so has what a program cannot do.
//
// Every measurement has everything to itself: new namespaces, a new server, a new proxy, started as dockerd starts it,
// and a new client (package load: processes of this command). So no measurement finds the TIME_WAIT sockets, the cached
// TCP metrics or the full memory of another. The namespaces have no name: they are gone with the processes in them, and
// those with the benchmark, however it ends.
//
// All processes share the CPUs of the machine, as they do on a Docker host; nothing is pinned. On two CPUs a proxy
// that uses less CPU leaves more to the client and the server, so read rates together with CPU times.
//
// Client, proxy and server are a scheduling group each, as a user's session, docker.service and a container's scope are where
// systemd has them: without that, the CPUs are shared out by threads, and a proxy that runs on more of them has more of a
// busy machine, at the expense of client, server and its rivals. Sessions are such groups where autogrouping is on
// (/proc/sys/kernel/sched_autogroup_enabled); a report says whether it is.
//
// On a machine that does other work as well, let the benchmark go first:
//
//	setsid -w sh -c 'echo -15 >/proc/self/autogroup; exec go run ./bench ratios'
//
// "shim" is started for each port, and one worker serves them all. Of idle ports, what the worker holds is in machine-kB
// alone; otherwise it is the proxy.
//
// "splice-header" is splice with -proxy-protocol v2, at crr: the server takes only connections that begin with such a header.
// It is compared with splice: "bench ratios -work crr -rows splice,splice-again,splice-header".
//
// Where there are many ports (pingpong-ports), what dockerd can start has a process for each, and HAProxy and nginx
// listen on all. The many processes share the client's group, and the worker, a session by itself, does not: look at the
// CPU times there.
//
// # What is measured
//
//	exchange/s, conn/s      answers per second
//	Gbit/s                  payload that arrived, both directions added
//	p50-us .. p99.9-us      from sending a message (or connecting) to the last byte of its answer; those that are
//	                        under way at the end are waited for. Of fewer than 1,000 answers there is no p99.9
//	proxy-us/..., -s/GB     CPU time of the proxy, from the CPU clocks of its processes: nanoseconds, ended threads and
//	                        children included.
//	                        Network interrupts that the kernel handles inside the proxy's system calls are in it,
//	                        unless the kernel has CONFIG_IRQ_TIME_ACCOUNTING
//	load-us/..., -s/GB      the same of client and server together: nine tenths are the kernel's work for their sockets
//	machine-us/..., -s/GB   time that the CPUs were not idle, from /proc/stat (ticks of 10 ms): interrupts and kernel
//	                        threads too, and what anyone else ran
//	pss-kB/conn             growth of the proxy's proportional set size over idle connections
//	kernel-kB/conn          growth of slab, kernel stacks, page tables and per-CPU memory, from /proc/meminfo, over
//	                        idle connections. The sockets of client and server are in it: "direct" is nothing else
//	fds/conn                descriptors that the proxy holds for an idle connection
//	start-ms                from exec to "0\n" on the status pipe, the median of all that were started; the socket is
//	                        handed over as from Docker 28 on, to proxies that know -use-listen-fd
//	first-ms                the same of the first, which starts the worker where there is one
//	pss-, private-, kernel-kB/port, threads/port   of one idle proxy among as many
//	machine-kB/port         growth of the memory of all processes that is no file's, and of the kernel's, from
//	                        /proc/meminfo
//	first-, last-quarter-p99-us   of the connections of churn, in the order of their ends
//	opened, failed-%        connections of churn within its time, and those of them that were reset or ended early
//	last-us                 until the last of the connects that began at once has its answer, the median of such volleys
//	lost-%                  datagrams that did not arrive, or whose answer did not within 200 ms
//
// Streams of TCP, beside others and alone (bulk), are measured from a second after they have begun: buffers grow meanwhile.
// Beside streams (connects-beside, message-beside) eight processes read what comes down through the same port: with one
// that reads slowly nothing shows of what streams do to others. Gbit/s and the CPU times are the streams' there. A
// message of 64 bytes, where no size is said, is one packet, so the last byte of its answer comes with the first. One that has
// no answer for the whole time, and two seconds more, counts for the percentiles as what it has waited; exchange/s is 0 then.
// udp-oneshot is DNS: each client asks once from a socket of its own. udp-single is sent by a system call for each datagram, udp-stream in
// blocks (UDP_SEGMENT).
//
// redis-benchmark, wrk, pgbench and iperf3 (with redis, nginx, PostgreSQL and iperf3 in the container) measure by
// themselves what they can; the CPU times are those of their whole life. mean-us is the mean, where no more is told.
//
// # How it is compared
//
// A work is measured in rounds, which go through the proxies in both directions alternately (ACB, BCA, BAC, CAB), so
// that none always stands behind the same one; the first round is short and dropped. The table has medians,
// extremes, and ratios to the reference: each round gives a ratio, and their median is printed. There are two
// references, docker-proxy and docker.io: unit by unit it is the ratio to the one that a proxy fares worse against.
// What lies within the noise prints as ~, and is no win and no loss. The noise of a unit of a work comes from two rows
// of the same program, ours and ours again ("splice-again", "udp-again"): were they other programs, the median ratio
// of the rounds would be off from 1 by chance, and two standard errors of it, taken from how far the two are apart in
// each round, are the noise. One round tells none. A work says of itself that client and server bound it when direct
// is not well above every proxy: the differences between proxies are larger than they look there. A run in which
// direct moved by more than 15% between rounds says of itself that it is noisy, and next to the name of a work stands
// how much of the CPUs processes took that are not the benchmark's. Nothing here passes or fails.
//
// SCTP is compared inside User Mode Linux, which has one CPU: clients and servers are sockets of one process, on one
// thread, and everything talks over lo with an MTU of 1500. A message that does not arrive as it was sent ends the
// benchmark, so messages larger than a packet are not compared: docker-proxy passes on the pieces that the kernel gives
// it, and 16 KiB arrived as a message of 7,260 bytes.
package main
