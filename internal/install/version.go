package install

import (
	"fmt"
	"regexp"
	"strconv"
)

// The first versions of dockerd that look for docker-proxy in libexec, and that expose the ports of a rootless one
// without rootlesskit-docker-proxy (moby f1e0746c08).
const (
	looksInLibexec = 27
	exposesItself  = 28
)

var numbered = regexp.MustCompile(`\b([0-9]+)\.[0-9]+\.[0-9]+[^ ,]*`)

// major gives the first number of dockerd's version, which may stand in a sentence, as "dockerd --version" answers.
func major(version string) (int, error) {
	found := numbered.FindStringSubmatch(version)
	if found == nil {
		return 0, fmt.Errorf("dockerd's version %q has no number by which to know how it finds its proxy", version)
	}
	return strconv.Atoi(found[1])
}

// number gives the version alone, without the sentence around it.
func number(version string) string {
	if found := numbered.FindString(version); found != "" {
		return found
	}
	return version
}
