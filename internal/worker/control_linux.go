package worker

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// List tells of every port, by frontend, and of their histograms if it is to.
func (w *Worker) List(histograms bool) List {
	list := List{Version: control, Worker: os.Getpid(), Program: w.version, Ports: []Port{}}
	for _, p := range w.all() {
		told := Port{
			Protocol: string(p.config.Protocol),
			Frontend: p.config.Frontend.String(),
			Backend:  p.config.Backend.String(),
			Shim:     p.pid,
			Since:    p.since,
			State:    p.state(),
			Engine:   p.relay.Engine,
			Bypass:   p.bypassState(),
			Counters: p.counters(),
		}
		if histograms {
			told.Histograms = p.durations.read()
		}
		list.Ports = append(list.Ports, told)
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

// Clients tells who talks most by a port: the answer to what follows "clients " in a question.
func (w *Worker) Clients(which string) (Clients, error) {
	var most int
	var protocol, frontend string
	if _, err := fmt.Sscanf(which, "%d %s %s", &most, &protocol, &frontend); err != nil || most < 0 || most > MaxClients {
		return Clients{}, fmt.Errorf("clients %q: want a number up to %d, a protocol and a frontend", which, MaxClients)
	}
	answer := Clients{Version: control, Worker: os.Getpid(), Ports: []PortClients{}}
	for _, p := range w.all() {
		if string(p.config.Protocol) == protocol && p.config.Frontend.String() == frontend {
			answer.Ports = append(answer.Ports, PortClients{p.pid, p.clients(most)})
		}
	}
	return answer, nil
}

func (p *port) clients(most int) []Client {
	all := []Client{}
	for _, c := range p.relay.Clients(most) {
		all = append(all, Client{c.Address.String(), c.Age.Seconds(), c.BytesIn, c.BytesOut})
	}
	return all
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
	for word := range strings.FieldsSeq(p.relay.Counters()) {
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
