// Package processes reads what /proc tells of other processes. One that ends meanwhile is left out, or tells nothing.
package processes
