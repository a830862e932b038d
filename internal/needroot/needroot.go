// Package needroot is for tests that only root can run, because they make network namespaces.
package needroot

import (
	"os"
	"testing"
)

// Check leaves the test out, with the reason, for a contributor who is not root. In CI a test that cannot run has
// failed.
func Check(t testing.TB) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") != "":
		t.Fatal("needs root, to make namespaces")
	default:
		t.Skip("needs root, to make namespaces")
	}
}
