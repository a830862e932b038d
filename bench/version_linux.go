package bench

import (
	"context"
	"debug/buildinfo"
	"os/exec"
	"path/filepath"
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
	if p.Ours() {
		if out, err := exec.CommandContext(ctx, p.Path, "-version").Output(); err == nil {
			known = append(known, strings.TrimSpace(string(out)))
		}
	}
	// Packages have their files by either name where /bin is /usr/bin. What is not found makes an error, and no output.
	directory, _ := filepath.EvalSymlinks(filepath.Dir(p.Path))
	owners, _ := exec.CommandContext(ctx, "dpkg-query", "-S", p.Path, filepath.Join(directory, filepath.Base(p.Path))).Output()
	if name, _, found := strings.Cut(string(owners), ":"); found {
		if out, err := exec.CommandContext(ctx, "dpkg-query", "-W", name).Output(); err == nil {
			known = append(known, strings.Join(strings.Fields(string(out)), " "))
		}
	}
	return strings.Join(known, ", ")
}
