// Package usage reads what a proxy, the ends of its traffic and the whole machine have used of the CPUs. It fails as package
// failure says.
package usage

// Others is the unit of what all but client, server and proxy took of the CPUs, threads of the kernel included.
const Others = "others-%"
