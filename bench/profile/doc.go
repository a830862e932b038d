// Command profile tells where a proxy's CPU time goes under some work, ours and the reference's algorithm side by side:
// in system calls of which kind, in the Go runtime, in our packages.
//
//	go run ./bench/profile -work pingpong/size=64/conns=64 -out /tmp/profile
//
// It leaves in the directory, for each of the two, a profile for "go tool pprof", a flame graph (SVG) and, where perf
// works, a recording of perf with the kernel's stacks. docs/profiling.md is a session with it.
package main
