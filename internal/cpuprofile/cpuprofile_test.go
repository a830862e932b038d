package cpuprofile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/portsplice/portsplice/internal/cpuprofile"
	"github.com/portsplice/portsplice/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cpu.pprof")
	for _, test := range []struct {
		name, path string
		fails      bool
	}{
		{"not asked for", "", false},
		{"to a file", file, false},
		{"to a directory that is not there", filepath.Join(t.TempDir(), "none", "cpu.pprof"), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv(cpuprofile.Variable, test.path)
			finish, err := cpuprofile.Start()
			if (err != nil) != test.fails {
				t.Fatalf("got %v", err)
			}
			if err != nil {
				return
			}
			if err := finish(); err != nil {
				t.Error(err)
			}
		})
	}
	if info, err := os.Stat(file); err != nil || info.Size() == 0 {
		t.Errorf("the profile is %v, %v", info, err)
	}
}
