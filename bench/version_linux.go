package bench

import (
	"context"
	"debug/buildinfo"
	"os/exec"
	"strings"
)

// version is for people: the version that a program tells of itself, its Debian package, and the Go that built it.
func version(ctx context.Context, p Proxy) string {
	if p.Path == "" {
		return ""
	}
	var known []string
	if info, err := buildinfo.ReadFile(p.Path); err == nil {
		known = append(known, info.GoVersion)
	}
	if out, err := exec.CommandContext(ctx, "dpkg-query", "-S", p.Path).Output(); err == nil {
		name, _, _ := strings.Cut(string(out), ":")
		if out, err = exec.CommandContext(ctx, "dpkg-query", "-W", name).Output(); err == nil {
			known = append(known, strings.Join(strings.Fields(string(out)), " "))
		}
	}
	return strings.Join(known, ", ")
}
