package bench

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Environment is where and with what something was measured.
type Environment struct {
	Date       time.Time `json:"date"`
	Kernel     string    `json:"kernel"`
	CPU        string    `json:"cpu"`
	Cores      int       `json:"cores"`
	Go         string    `json:"go"`
	TCP        string    `json:"tcp"`         // its congestion control
	LoadBefore string    `json:"load_before"` // averages of 1, 5 and 15 minutes
	LoadAfter  string    `json:"load_after"`
	Noise      float64   `json:"noise"` // the most that direct moved in any work
}

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

// Head is what is known before the measurements.
func (e Environment) Head(proxies []Proxy) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s, %d cores, TCP %s, %s, %s\n",
		e.Kernel, e.CPU, e.Cores, e.TCP, e.Go, e.Date.Format(time.RFC3339))
	fmt.Fprintf(&b, "load average before: %s\n", e.LoadBefore)
	for _, p := range proxies {
		if p.Path != "" {
			command := strings.Join(append([]string{p.Path}, p.Arguments...), " ")
			fmt.Fprintf(&b, "%-12s  %s (%s)\n", p.Name, command, builtWith(p.Path))
		}
	}
	return b.String()
}

// Foot is what is known after them.
func (e Environment) Foot() string {
	verdict := "quiet"
	if e.Noise > NoiseLimit {
		verdict = "NOISY"
	}
	return fmt.Sprintf("\nload average after: %s\n%s: direct moved by up to %.0f%% between rounds\n",
		e.LoadAfter, verdict, 100*e.Noise)
}

func builtWith(path string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "not built by Go"
	}
	return info.GoVersion
}
