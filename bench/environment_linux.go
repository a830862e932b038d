package bench

import (
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ReadEnvironment reads all that is known before the measurements.
func ReadEnvironment() (Environment, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Environment{}, os.NewSyscallError("uname", err)
	}
	load, err := LoadAverage()
	return Environment{
		Date:       time.Now().Round(time.Second),
		Kernel:     unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]),
		CPU:        cpuModel(),
		Cores:      runtime.NumCPU(),
		Go:         runtime.Version(),
		TCP:        CongestionControl,
		LoadBefore: load,
	}, err
}

// LoadAverage gives the averages of 1, 5 and 15 minutes.
func LoadAverage() (string, error) {
	b, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(b))
	return strings.Join(fields[:min(3, len(fields))], " "), err
}

// cpuModel is for people: not every architecture tells.
func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
