package worker

import (
	"cmp"
	"encoding/json"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// List tells of every port, by frontend.
func (w *Worker) List() List {
	list := List{Version: control, Worker: os.Getpid(), Program: w.version, Ports: []Port{}}
	for _, p := range w.all() {
		list.Ports = append(list.Ports, Port{
			Protocol: string(p.config.Protocol),
			Frontend: p.config.Frontend.String(),
			Backend:  p.config.Backend.String(),
			Shim:     p.pid,
			Since:    p.since,
			Engine:   p.relay.Engine,
			Bypass:   p.bypassState(),
			Counters: p.counters(),
		})
	}
	return list
}

// Totals sums up.
func (w *Worker) Totals() Totals {
	t := Totals{Version: control, Worker: os.Getpid(), Program: w.version, Since: w.began, Counters: map[string]uint64{}}
	for _, p := range w.all() {
		t.Ports++
		for name, value := range p.counters() {
			t.Counters[name] += value
		}
	}
	return t
}

func (w *Worker) all() []*port {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]*port, 0, len(w.ports))
	for p := range w.ports {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *port) int {
		return cmp.Or(cmp.Compare(a.config.Protocol, b.config.Protocol), a.config.Frontend.Compare(b.config.Frontend))
	})
	return all
}

// counters are those that SIGUSR1 prints. What is of the whole process is not the port's.
func (p *port) counters() map[string]uint64 {
	counters := map[string]uint64{}
	for word := range strings.FieldsSeq(p.relay.Stats().String()) {
		name, text, _ := strings.Cut(word, "=")
		if value, err := strconv.ParseUint(text, 10, 64); err == nil && name != "loops" && name != "pipes" {
			counters[name] = value
		}
	}
	return counters
}

// piece is how much of an answer goes into a message: less than what a socket's buffer holds by default.
const piece = 64 << 10

// reply sends a line of JSON.
func (w *Worker) reply(conn *net.UnixConn, what any) {
	line, err := json.Marshal(what)
	if err != nil {
		line = []byte(strconv.Quote(err.Error()))
	}
	_ = conn.SetWriteDeadline(time.Now().Add(patience))
	for part := range slices.Chunk(append(line, '\n'), piece) {
		if _, err := conn.Write(part); err != nil {
			return
		}
	}
}
