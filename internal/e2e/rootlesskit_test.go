//go:build e2e && linux

package e2e

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/rig"
)

var rootlessKitFlag = flag.String("rootlesskit", "../../bin/tools/rootlesskit", "RootlessKit of 3.0 or later (make bin/tools/rootlesskit)")

// TestRootlessClientAddress: RootlessKit's builtin port driver, of 3.0 and later, connects to a port with the client's own address,
// and proxy-protocol tells the container that address.
func TestRootlessClientAddress(t *testing.T) {
	rootlesskit, err := filepath.Abs(*rootlessKitFlag)
	if err != nil {
		t.Fatal(err)
	}
	dir := furnishRootless(t)
	for _, name := range []string{rootlesskit, filepath.Join(filepath.Dir(program), "portsplice")} { // the user may not get to them
		binary, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(name)), binary, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	here, there := rig.Namespace(t), rig.Namespace(t)
	host, client := netip.MustParsePrefix("198.18.7.1/24"), netip.MustParsePrefix("198.18.7.2/24")
	rig.Must(t, netlab.Cable("client", here, host, there, client))

	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	proxy := filepath.Join(dir, "portsplice")
	kit := exec.Command(filepath.Join(dir, "rootlesskit"), "--net=slirp4netns", "--cidr=198.19.0.0/24", "--disable-host-loopback",
		"--copy-up=/run", "--port-driver=builtin", "--source-ip-transparent", "--state-dir", filepath.Join(dir, "state"),
		"--publish", fmt.Sprintf("0.0.0.0:%d:80/tcp", httpPort),
		proxy, "-host-port", "80", "-container-ip", "127.0.0.1", "-container-port", "8080", "-proxy-protocol", "v1")
	kit.Dir, kit.Stdout, kit.Stderr = dir, log, log
	kit.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir}
	kit.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: rootlessUser, Gid: rootlessUser}}
	rig.Must(t, here.Do(kit.Start))
	t.Cleanup(func() {
		rig.Check(t, kit.Process.Signal(unix.SIGTERM))
		_ = kit.Wait() // its status is the proxy's, or not
		if text, err := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("RootlessKit says\n%s%v", text, err)
		}
		rig.Check(t, log.Close())
		expectNothingLeft(t)
	})
	var inside *netlab.Namespace
	eventually(t, "the proxy runs", func() bool {
		found := running(t, proxy)
		if len(found) == 1 {
			inside, err = netlab.Of(found[0].pid)
		}
		return len(found) == 1 && err == nil
	})
	defer inside.Close()
	var backend net.Listener
	rig.Must(t, inside.Do(func() (err error) {
		backend, err = net.Listen("tcp", "127.0.0.1:8080")
		return err
	}))
	t.Cleanup(func() { _ = backend.Close() })
	go func() {
		for {
			conn, err := backend.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			_, _ = io.WriteString(conn, line) // the client knows what it should be
			_ = conn.Close()
		}
	}()

	var want, told string
	eventually(t, "RootlessKit and the proxy serve the port", func() bool {
		var conn net.Conn
		if there.Do(func() (err error) {
			conn, err = net.Dial("tcp", netip.AddrPortFrom(host.Addr(), httpPort).String())
			return err
		}) != nil {
			return false
		}
		defer func() { _ = conn.Close() }()
		addr := conn.LocalAddr().(*net.TCPAddr)
		want = fmt.Sprintf("PROXY TCP4 %s 127.0.0.1 %d 80\r\n", addr.IP, addr.Port)
		answer, _ := io.ReadAll(conn) // a reset, while the proxy does not listen yet
		told = string(answer)
		return told != ""
	})
	if told != want {
		t.Errorf("the container is told %q, want %q", told, want)
	}
}
