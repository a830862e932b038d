// Command compare tells whether one build of portsplice is faster than another: it measures both in rounds that
// alternate and hands the rounds to benchstat.
//
//	go run ./bench/compare -work pingpong,crr bin/before bin/portsplice
//
// TCP runs on the engine that the builds choose by themselves. It is what to run before claiming a gain; "make compare"
// installs benchstat.
package main
