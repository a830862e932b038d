//go:build linux && sctp_kernel

package sctp

import (
	"cmp"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	testrig "github.com/portsplice/portsplice/internal/rig"
)

// TestLksctp: two programs of lksctp-tools, which know nothing of this package, see the same messages at both ends.
func TestLksctp(t *testing.T) {
	for _, test := range []struct{ name, on, order, sizes string }{
		{"unordered, 1 byte to 32 KiB", "127.0.0.1", "0", "4"},
		{"ordered, 1 byte to 32 KiB, v6", "::1", "1", "4"},
		{"alternating, around the size of a packet", "127.0.0.1", "2", "1"},
		{"random order, random sizes", "127.0.0.1", "3", "6"},
	} {
		t.Run(test.name, func(t *testing.T) {
			backend := freePort(t, test.on)
			server := startTool(t, "-H", test.on, "-P", strconv.Itoa(int(backend.Port())), "-l")
			server.expect("Receiving packets")
			relay := startRelay(t, test.on, backend, Options{})
			client := startTool(t, "-H", test.on, "-P", strconv.Itoa(int(freePort(t, test.on).Port())),
				"-h", test.on, "-p", strconv.Itoa(int(relay.addr.Port())), "-s", "-T",
				"-c", test.sizes, "-o", test.order, "-M", "10", "-m", "60000")
			if err := client.Wait(); err != nil {
				t.Fatalf("sctp_test -s: %v\n%s", err, client.out.String())
			}
			server.expect("SHUTDOWN_COMPLETE")
			sent, received := deliveries(t, client.out.String()), deliveries(t, server.out.String())
			if len(sent) < 10 {
				t.Errorf("only %d messages were sent", len(sent))
			}
			// Of the first message the server does not print more than its size.
			sent[0] = sighting{Bytes: sent[0].Bytes}
			byPPID := func(a, b sighting) int { return cmp.Compare(a.PPID, b.PPID) } // unordered ones may overtake
			slices.SortFunc(sent, byPPID)
			slices.SortFunc(received, byPPID)
			received = joined(received)
			if diff := gocmp.Diff(sent, received); diff != "" {
				t.Errorf("messages (-sent +received):\n%s", diff)
			}
			expectIdle(t, relay)
		})
	}
}

// sighting is what sctp_test prints of a message that it sends or receives.
type sighting struct{ Bytes, Stream, Flags, PPID int }

var (
	sized     = regexp.MustCompile(`(?:sendmsg\(sk=\d+, assoc=\d+\)|Data) +(\d+) bytes`)
	described = regexp.MustCompile(`SNDRCV\(stream=(\d+) .*flags=0x([0-9a-f]+) .*ppid=(\d+)`)
)

func deliveries(t *testing.T, out string) (all []sighting) {
	t.Helper()
	number := func(s string, base int) int {
		n, err := strconv.ParseInt(s, base, 64)
		if err != nil {
			t.Fatalf("sctp_test printed %q: %v", s, err)
		}
		return int(n)
	}
	for line := range strings.Lines(out) {
		if m := sized.FindStringSubmatch(line); m != nil {
			all = append(all, sighting{Bytes: number(m[1], 10)})
		} else if m := described.FindStringSubmatch(line); m != nil && len(all) > 0 {
			last := &all[len(all)-1]
			last.Stream, last.Flags, last.PPID = number(m[1], 10), number(m[2], 16), number(m[3], 10)
		}
	}
	return all
}

// joined puts the pieces of a message together: sctp_test prints each as a message of its own. No two messages have the
// same PPID.
func joined(all []sighting) (whole []sighting) {
	for _, s := range all {
		if n := len(whole); n > 0 && whole[n-1].PPID == s.PPID {
			whole[n-1].Bytes += s.Bytes
			continue
		}
		whole = append(whole, s)
	}
	return whole
}

// tool is a running sctp_test.
type tool struct {
	*exec.Cmd
	t   *testing.T
	out testrig.Output
}

func startTool(t *testing.T, args ...string) *tool {
	t.Helper()
	p := &tool{Cmd: exec.Command("sctp_test", args...), t: t}
	p.Stdout, p.Stderr = &p.out, &p.out
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(patienceOfPeers, func() { _ = p.Process.Kill() })
	t.Cleanup(func() {
		watchdog.Stop()
		_ = p.Process.Kill() // it may have ended
		_ = p.Wait()         // and been waited for
	})
	return p
}

// expect waits until the program has printed something.
func (p *tool) expect(words string) {
	p.t.Helper()
	eventually(p.t, func() bool { return strings.Contains(p.out.String(), words) },
		func() string { return "sctp_test did not print " + words + ":\n" + p.out.String() })
}
