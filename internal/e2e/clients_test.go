//go:build e2e && linux

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	redisPort    = 6379
	postgresPort = 5432
)

// TestRealClientsAreBypassed has programs that others wrote use ports of the host's loopback: their answers are right, and
// the proxy sees none of their connections.
func TestRealClientsAreBypassed(t *testing.T) {
	d := startBypassing(t)
	postgres := d.createAs(t, postgresSettings(t), tcp(postgresPort)) // takes the longest to be ready
	postgres.start(t)
	redis := d.createAs(t, settings{
		Entrypoint: []string{"/usr/bin/redis-server", "--port", strconv.Itoa(redisPort), "--protected-mode", "no", "--save", ""},
		HostConfig: hostConfig{Binds: withPrograms},
	}, tcp(redisPort))
	redis.start(t)
	redis.awaitPort(t, redisPort)
	d.run(t, tcp(httpPort), tcp(echoPort))

	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run("curl to "+host, func(t *testing.T) {
			expectBypassed(t, 3, func() { useCurl(t, pageURL(host, httpPort)) }, httpPort)
		})
		t.Run("curl to "+host+" with TCP_FASTOPEN_CONNECT", func(t *testing.T) {
			expectRelayed(t, 3, func() { useCurl(t, pageURL(host, httpPort), "--tcp-fastopen") }, httpPort)
		})
		t.Run("python to "+host, func(t *testing.T) {
			expectBypassed(t, 3, func() { usePython(t, host) }, httpPort, echoPort)
		})
		t.Run("net-http to "+host, func(t *testing.T) {
			expectBypassed(t, 1, func() { useKeptAlive(t, pageURL(host, httpPort)) }, httpPort)
		})
		t.Run("nginx to "+host, func(t *testing.T) {
			expectBypassed(t, some, func() { useNginx(t, net.JoinHostPort(host, strconv.Itoa(httpPort))) }, httpPort)
		})
		t.Run("redis-benchmark to "+host, func(t *testing.T) {
			expectBypassed(t, some, func() { useRedis(t, host) }, redisPort)
		})
		t.Run("postgres to "+host, func(t *testing.T) {
			awaitPostgres(t, postgres)
			expectBypassed(t, some, func() { usePostgres(t, host) }, postgresPort)
		})
	}
	t.Run("curl to localhost", func(t *testing.T) { // tries one address after the other
		expectBypassed(t, some, func() { useCurl(t, pageURL("localhost", httpPort)) }, httpPort)
	})
}

// useCurl gets a page, uploads and downloads, each with a connection of its own.
func useCurl(t *testing.T, base string, options ...string) {
	t.Helper()
	const size = 8 << 20
	curl := func(args ...string) string {
		t.Helper()
		return output(t, "/usr/bin/curl", append(append([]string{"--silent", "--show-error", "--fail"}, options...), args...)...)
	}
	if got, want := curl(base, base), pageOf(httpPort)+pageOf(httpPort); got != want { // the second over the same connection
		t.Errorf("pages: got %q, want %q", got, want)
	}
	file := filepath.Join(t.TempDir(), "file")
	sent := randomBytes(size)
	if err := os.WriteFile(file, sent, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := curl("--data-binary", "@"+file, base+"upload"), hexSum(sent); got != want {
		t.Errorf("SHA-256: server received %s, curl sent %s", got, want)
	}
	want := make([]byte, size)
	if _, err := io.ReadFull(rand.NewChaCha8([32]byte{}), want); err != nil { // as the server does
		t.Fatal(err)
	}
	curl("--output", file, fmt.Sprintf("%sdownload?bytes=%d", base, size))
	received, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(received, want) {
		t.Errorf("the %d bytes received are not the %d that the server sends", len(received), size)
	}
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// usePython has http.client, sockets that block for a time, and asyncio connect once each.
func usePython(t *testing.T, host string) {
	t.Helper()
	const script = `
import asyncio, http.client, ipaddress, os, socket, sys
host, web, echo, patience = sys.argv[1], *map(int, sys.argv[2:])

def check(sock, port):
    assert sock.getpeername()[:2] == (host, port), sock
    assert ipaddress.ip_address(sock.getsockname()[0]).is_loopback, sock

client = http.client.HTTPConnection(host, web, timeout=patience)
for _ in range(3):
    client.request("GET", "/")
    print(client.getresponse().read().decode(), end="")
    check(client.sock, web)

with socket.create_connection((host, echo), timeout=patience) as sock:
    check(sock, echo)
    sent = os.urandom(10_000)
    sock.sendall(sent)
    assert sock.makefile("rb").read(len(sent)) == sent

async def talk():
    reader, writer = await asyncio.open_connection(host, echo)
    check(writer.get_extra_info("socket"), echo)
    sent = os.urandom(1_000_000)
    received = asyncio.create_task(reader.readexactly(len(sent)))
    writer.write(sent)
    await writer.drain()
    assert await received == sent
    writer.close()

asyncio.run(asyncio.wait_for(talk(), patience))
`
	got := output(t, "/usr/bin/python3", "-c", script, host, strconv.Itoa(httpPort), strconv.Itoa(echoPort),
		fmt.Sprint(int(patience.Seconds())))
	if want := strings.Repeat(pageOf(httpPort), 3); got != want {
		t.Errorf("pages: got %q, want %q", got, want)
	}
}

// useKeptAlive gets pages over one connection.
func useKeptAlive(t *testing.T, url string) {
	t.Helper()
	var transport http.Transport
	defer transport.CloseIdleConnections()
	client := http.Client{Timeout: patience, Transport: &transport}
	for range 100 {
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := readPage(t, resp), pageOf(httpPort); got != want {
			t.Errorf("page: got %q, want %q", got, want)
		}
	}
}

// useNginx has nginx serve HTTP on a unix socket from a published port, over connections that it keeps and over new ones.
func useNginx(t *testing.T, published string) {
	t.Helper()
	dir := t.TempDir()
	config, socket := filepath.Join(dir, "config"), filepath.Join(dir, "socket")
	err := os.WriteFile(config, fmt.Appendf(nil, `
daemon off;
user root;
pid %[1]s/pid;
events {}
http {
	access_log off;
	client_max_body_size 0;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	upstream published {
		server %[2]s;
		keepalive 4;
	}
	server {
		listen unix:%[3]s;
		location /kept/ {
			proxy_pass http://published/;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
		}
		location /new/ {
			proxy_pass http://%[2]s/;
		}
	}
}
`, dir, published, socket), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	nginx := exec.CommandContext(ctx, "/usr/sbin/nginx", "-e", "stderr", "-c", config)
	nginx.Cancel = func() error { return nginx.Process.Signal(unix.SIGTERM) } // ends its children, too
	var stderr bytes.Buffer
	nginx.Stderr = &stderr
	if err := nginx.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stop()
		if err := nginx.Wait(); !nginx.ProcessState.Success() {
			t.Errorf("nginx: %v\n%s", err, stderr.Bytes())
		}
	}()
	eventually(t, "nginx listens", func() bool {
		conn, err := net.Dial("unix", socket)
		return err == nil && conn.Close() == nil
	})
	for _, path := range []string{"kept", "new"} {
		useCurl(t, "http://nginx/"+path+"/", "--unix-socket", socket)
	}
}

// useRedis counts in the database with 50 clients at a time, and asks it how far they came.
func useRedis(t *testing.T, host string) {
	t.Helper()
	const requests = "20000"
	to := []string{"-h", host, "-p", strconv.Itoa(redisPort)}
	cli := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(output(t, "/usr/bin/redis-cli", append(to, args...)...))
	}
	cli("FLUSHALL")
	output(t, "/usr/bin/redis-benchmark", append(to, "-q", "-c", "50", "-n", requests, "-t", "incr")...)
	if got := cli("GET", "counter:__rand_int__"); got != requests {
		t.Errorf("the counter is at %q, want %s", got, requests)
	}
}

// postgresProgram is where Debian keeps a program of PostgreSQL; what is on the PATH starts one of several versions.
func postgresProgram(t *testing.T, name string) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		t.Fatalf("no /usr/lib/postgresql/*/bin/%s (apt-get install postgresql): %v", name, err)
	}
	return found[0]
}

// postgresSettings are those of a container that makes a database and serves it. It refuses to be root's.
func postgresSettings(t *testing.T) settings {
	t.Helper()
	script := fmt.Sprintf(`
%s -D /data/base -U postgres -A trust -N --no-locale >&2 &&
echo "host all all all trust" >>/data/base/pg_hba.conf &&
exec %s -D /data/base -p %d -c listen_addresses='*' -c unix_socket_directories= -c fsync=off
`, postgresProgram(t, "initdb"), postgresProgram(t, "postgres"), postgresPort)
	return settings{
		User:       "65534",
		Entrypoint: []string{"/bin/sh", "-c", script},
		HostConfig: hostConfig{Binds: withPrograms, Tmpfs: map[string]string{"/data": "mode=777"}},
	}
}

// awaitPostgres waits until the database takes queries, which is some time after its port is open.
func awaitPostgres(t *testing.T, c container) {
	t.Helper()
	isReady, address := postgresProgram(t, "pg_isready"), c.ip(t)
	eventually(t, "the database takes queries", func() bool {
		return exec.CommandContext(t.Context(), isReady, "-q", "-h", address, "-p", strconv.Itoa(postgresPort)).Run() == nil
	})
}

// usePostgres has psql read many rows, and eight clients at a time write some that psql counts.
func usePostgres(t *testing.T, host string) {
	t.Helper()
	const rows = 100_000
	to := []string{"-h", host, "-p", strconv.Itoa(postgresPort), "-U", "postgres"}
	run := func(program string, args ...string) string {
		t.Helper()
		return output(t, postgresProgram(t, program), append(to, append(args, "postgres")...)...)
	}
	var want strings.Builder
	for i := range rows {
		fmt.Fprintln(&want, i+1)
	}
	query := func(sql string) string {
		t.Helper()
		return run("psql", "-A", "-t", "-X", "-c", sql)
	}
	if got := query(fmt.Sprintf("SELECT * FROM generate_series(1, %d)", rows)); got != want.String() {
		t.Errorf("got %d bytes that are not the %d rows asked for", len(got), rows)
	}
	run("pgbench", "-q", "-i")
	run("pgbench", "-n", "-c", "8", "-t", "50")
	if got, want := query("SELECT count(*) FROM pgbench_history"), "400\n"; got != want {
		t.Errorf("transactions in the database: got %q, want %q", got, want)
	}
}

// output runs a program to its end and returns its standard output. It ends the test if the program fails or takes long.
func output(t *testing.T, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"HOME=" + t.TempDir(), "PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "PGCONNECT_TIMEOUT=15"}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v (%v)\n%s%s", cmd, err, context.Cause(ctx), out, stderr.Bytes())
	}
	return string(out)
}
