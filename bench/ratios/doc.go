// Command ratios compares the proxies: it measures them in rounds that alternate and prints medians, extremes and the
// ratios to the reference. The documentation of package bench tells what the figures mean.
package main
