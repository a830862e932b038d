//go:build e2e && linux

package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

// visitor gets every page over a connection of its own.
var visitor = http.Client{
	Timeout:   4 * patience,
	Transport: &http.Transport{DisableKeepAlives: true},
}

func TestBulkArrivesWhole(t *testing.T) {
	const size = 64 << 20
	d := startDaemon(t)
	d.run(t, tcp(httpPort))
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run("download from "+host, func(t *testing.T) { download(t, pageURL(host, httpPort), size) })
		t.Run("upload to "+host, func(t *testing.T) { upload(t, pageURL(host, httpPort), size) })
	}
}

func download(t *testing.T, base string, size int64) {
	resp, err := visitor.Get(fmt.Sprintf("%sdownload?bytes=%d", base, size))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end or given up
	sum := sha256.New()
	got, err := io.Copy(sum, resp.Body)
	if err != nil || got != size {
		t.Fatalf("body: got %d bytes and error %v, want %d bytes", got, err, size)
	}
	// The trailer is there once the body has been read to its end.
	if got, want := hex.EncodeToString(sum.Sum(nil)), resp.Trailer.Get("Sha256"); got != want {
		t.Errorf("SHA-256: received %s, server sent %s", got, want)
	}
}

func upload(t *testing.T, base string, size int64) {
	sum := sha256.New()
	body := io.TeeReader(io.LimitReader(rand.Reader, size), sum)
	resp, err := visitor.Post(base+"upload", "application/octet-stream", body)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := readPage(t, resp), hex.EncodeToString(sum.Sum(nil)); got != want {
		t.Errorf("SHA-256: server received %s, client sent %s", got, want)
	}
}

// TestLateReplyAfterHalfClose has the server answer only after the client has shut down its write side (moby#27539).
func TestLateReplyAfterHalfClose(t *testing.T) {
	d := startDaemon(t)
	d.run(t, tcp(latePort))
	for _, test := range []struct {
		name string
		size int
	}{
		{"nothing", 0},
		{"a line", 80},
		{"more than every buffer on the way", 16 << 20},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn := dial(t, "tcp", fmt.Sprintf("127.0.0.1:%d", latePort))
			sent := randomBytes(test.size)
			if _, err := conn.Write(sent); err != nil {
				t.Fatal(err)
			}
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			received, err := io.ReadAll(conn)
			if err != nil {
				t.Fatalf("after %d of %d bytes: %v", len(received), test.size, err)
			}
			if !bytes.Equal(received, sent) {
				t.Errorf("the reply of %d bytes is not the %d bytes that were sent", len(received), test.size)
			}
		})
	}
}

// TestDatagramsComeBack echoes over connected sockets, which take a reply only from the address that was asked.
func TestDatagramsComeBack(t *testing.T) {
	d := startDaemon(t)
	d.run(t, udpEcho)
	for _, host := range []string{"127.0.0.1", "::1", gateway} {
		for _, size := range []int{0, 1, 1400, 9000, 60000} {
			t.Run(fmt.Sprintf("%s/%d bytes", host, size), func(t *testing.T) {
				if size == 0 && filepath.Base(program) == "docker-proxy" {
					t.Skip("docker-proxy loses empty datagrams")
				}
				echoDatagram(t, dial(t, "udp", net.JoinHostPort(host, fmt.Sprint(echoPort))), size)
			})
		}
	}
}

// echoDatagram sends a datagram of random bytes and expects it back.
func echoDatagram(t *testing.T, conn net.Conn, size int) {
	t.Helper()
	sent := randomBytes(size)
	if _, err := conn.Write(sent); err != nil {
		t.Fatal(err)
	}
	received := make([]byte, size+1) // one more, to notice a datagram that is too long
	n, err := conn.Read(received)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(received[:n], sent) {
		t.Errorf("received a datagram of %d bytes that is not the one of %d that was sent", n, size)
	}
}

// echoStream sends random bytes and expects them back.
func echoStream(t *testing.T, conn net.Conn, size int) {
	t.Helper()
	sent, received := randomBytes(size), make([]byte, size)
	if _, err := conn.Write(sent); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, received); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(received, sent) {
		t.Errorf("the %d bytes received are not those that were sent", size)
	}
}

func randomBytes(size int) []byte {
	b := make([]byte, size)
	rand.Read(b) // never fails
	return b
}

// dial connects to a published port. The connection has a deadline, and is closed when the test ends.
func dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// get returns the page at a URL.
func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := visitor.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return readPage(t, resp)
}

func readPage(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer func() { _ = resp.Body.Close() }() // read to its end or given up
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s", resp.Request.URL, resp.Status, page)
	}
	return string(page)
}
