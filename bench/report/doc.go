// Command report makes a run of the benchmarks readable: from the results.json in a directory it writes README.md beside
// it, with a table for each work, and plots.
//
//	go run ./bench/report bench/results/2026-11-22-6.18.44
//	go run ./bench/report -readme README.md bench/results/2026-11-22-6.18.44    and the table of the project's README
package main
