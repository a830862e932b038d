//go:build e2e && linux

package e2e

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/portsplice/portsplice/internal/leakcheck"
)

var (
	proxyFlag     = flag.String("proxy", "../../bin/portsplice", "`program` that dockerd starts for every published port")
	dockerdFlag   = flag.String("dockerd", "/usr/sbin/dockerd", "dockerd to test with; newer ones than 20.10 pass more arguments")
	referenceFlag = flag.String("reference", "/usr/sbin/docker-proxy", "what benchmarks compare the program with")
	dockerFlag    = flag.String("docker", "/usr/bin/docker", "command-line client, where a test shows what a user sees")
)

// program is the absolute path of the program under test, as dockerd gets it.
var program string

func TestMain(m *testing.M) {
	flag.Parse()
	if err := findPrograms(); err != nil {
		fail(err)
	}
	switch os.Getenv(stageVariable) {
	case "":
		os.Exit(runInNamespaces())
	case stageInit:
		os.Exit(actAsInit())
	}
	leakcheck.Main(m)
}

// findPrograms says what is missing and how to get it, instead of the many odd failures that would follow.
func findPrograms() (err error) {
	if os.Geteuid() != 0 {
		return errors.New("these tests start dockerd in new namespaces: run them as root")
	}
	if program, err = filepath.Abs(*proxyFlag); err != nil {
		return err
	}
	if _, err := os.Stat(program); err != nil {
		return fmt.Errorf("program under test (make build, or -args -proxy PATH): %w", err)
	}
	for _, path := range []string{*dockerdFlag, *dockerFlag} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w (apt-get install --no-install-recommends docker.io)", err)
		}
	}
	return nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	os.Exit(1)
}
