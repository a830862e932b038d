package exporter

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/portsplice/portsplice/internal/worker"
)

// portLabels tell ports apart. There are as many values as ports that are published: nothing that a client chooses is a
// label. They are in the order by which the registry sorts.
var portLabels = []string{"container_ip", "container_port", "host_ip", "host_port", "protocol"}

// metric is what is exported of a port, if its protocol has it.
type metric struct {
	desc      *prometheus.Desc
	kind      prometheus.ValueType
	protocols string         // of which it is, by their first letters
	reason    *dto.LabelPair // nil: the metric does not have that label
	value     func(p worker.Port) uint64
}

// described are the descriptions of metrics, by name: those with a reason share theirs.
var described = map[string]*prometheus.Desc{}

func describe(name, help string, labels ...string) *prometheus.Desc {
	if described[name] == nil {
		described[name] = prometheus.NewDesc("portsplice_"+name, help, labels, nil)
	}
	return described[name]
}

func gauge(protocols, name, help, counter string) metric {
	return metric{describe(name, help, portLabels...), prometheus.GaugeValue, protocols, nil, of(counter)}
}

func counter(protocols, name, help, counter string) metric {
	return metric{describe(name, help, portLabels...), prometheus.CounterValue, protocols, nil, of(counter)}
}

func of(counter string) func(worker.Port) uint64 {
	return func(p worker.Port) uint64 { return p.Counters[counter] }
}

var reasonLabel = "reason"

// byReason is a counter for each reason.
func byReason(protocols, name, help string, values map[string]func(worker.Port) uint64) (all []metric) {
	desc := describe(name, help, append(portLabels[:len(portLabels):len(portLabels)], reasonLabel)...)
	for _, reason := range slices.Sorted(maps.Keys(values)) {
		pair := &dto.LabelPair{Name: &reasonLabel, Value: &reason}
		all = append(all, metric{desc, prometheus.CounterValue, protocols, pair, values[reason]})
	}
	return all
}

func dialError(reason string) func(worker.Port) uint64 {
	return func(p worker.Port) uint64 { return p.DialErrors()[reason] }
}

// ofPorts are the metrics of a port.
var ofPorts = slices.Concat([]metric{
	gauge("ts", "connections", "Connections of clients that there are now.", "active"),
	counter("ts", "connections_total", "Connections of clients that were accepted.", "accepted"),
	counter("ts", "connections_aborted_total", "Connections that a reset or a failure has ended.", "aborted"),
	counter("ts", "accept_failures_total", "Failures to accept a client, and clients reset for want of descriptors.",
		"accept-errors"),
	counter("t", "proxy_headers_refused_total", "Clients that were reset because their PROXY header was missing or wrong.",
		"headers-refused"),
	counter("tu", "sources_refused_total", "Clients, of UDP their datagrams, whose address the backend could not be shown.",
		"source-refused"),
	counter("tsu", "received_bytes_total", "Bytes from clients that have reached the backend.", "bytes-in"),
	counter("tsu", "sent_bytes_total", "Bytes from the backend that have reached clients.", "bytes-out"),
	counter("t", "spliced_bytes_total", "Bytes, of both ways, that were moved by splice(2).", "spliced"),
	counter("t", "bypassed_connections_total", "Connections of local clients that went to the container without the proxy.",
		"bypassed"),
	gauge("u", "udp_flows", "UDP clients in the table now.", "flows"),
	counter("u", "udp_flows_total", "UDP clients that were taken into the table.", "flows-total"),
	counter("u", "udp_datagrams_received_total", "Datagrams from clients that were sent to the backend.", "datagrams-in"),
	counter("u", "udp_datagrams_sent_total", "Datagrams from the backend that were sent to clients.", "datagrams-out"),
	counter("u", "udp_refusals_total", "ICMP answers that nobody listens at the backend.", "refused"),
	counter("s", "sctp_messages_received_total", "Messages from clients that were sent to the backend.", "messages-in"),
	counter("s", "sctp_messages_sent_total", "Messages from the backend that were sent to clients.", "messages-out"),
	counter("s", "sctp_messages_dropped_total", "Messages that came too late for the side that they were for.", "undelivered"),
}, byReason("ts", "backend_connect_failures_total", "Connections to the backend that failed; their clients were reset.",
	map[string]func(worker.Port) uint64{
		"refused": dialError("refused"), "timeout": dialError("timeout"), "unreachable": dialError("unreachable"),
		"exhausted": dialError("exhausted"), "other": dialError("other"),
	}), byReason("u", "udp_datagrams_dropped_total", "Datagrams that were not passed on.",
	map[string]func(worker.Port) uint64{
		"too_large":   of("too-large"),
		"socket_full": of("kernel-dropped"),
		"other": func(p worker.Port) uint64 {
			return p.Counters["dropped"] - min(p.Counters["too-large"], p.Counters["dropped"])
		},
	}), byReason("u", "udp_flows_ended_total", "UDP clients that were forgotten.",
	map[string]func(worker.Port) uint64{
		"idle": of("expired"), "evicted": of("evicted"), "failed": of("abandoned"),
	}))

// histograms are those of a port, by the names that workers give them.
var histograms = map[string]*prometheus.Desc{
	"connection-duration": describe("connection_duration_seconds",
		"How long connections lasted that have ended.", portLabels...),
	"connect-duration": describe("connect_duration_seconds",
		"How long the backend took to be connected, from the client's accept on.", portLabels...),
}

// zeroThreshold is up to what a worker's histograms count a time as none, in seconds.
const zeroThreshold = 1.0 / (1 << 20)

// What is not of a port.
var (
	portStart = describe("port_start_time_seconds", "Since when the port is served, in seconds since 1970.", portLabels...)

	up = describe("up", "Whether every worker that there is has answered.")

	workerCount = describe("workers", "Workers that have answered.")

	buildInfo = describe("build_info", "The version of this exporter.", "version")

	workerInfo  = describe("worker_info", "The version of a worker, which may be older than that of the program.", "worker", "version")
	workerPorts = describe("worker_ports", "Ports that a worker serves.", "worker")

	workerMemory = describe("worker_resident_memory_bytes", "Resident memory of a worker.", "worker")
	workerFDs    = describe("worker_open_fds", "Descriptors that a worker has open.", "worker")
	workerMaxFDs = describe("worker_max_fds", "Descriptors that a worker may have open (RLIMIT_NOFILE).", "worker")
	workerCPU    = describe("worker_cpu_seconds_total", "CPU time of a worker, of user and system.", "worker")
	workerStart  = describe("worker_start_time_seconds", "When a worker was started, in seconds since 1970.", "worker")
)
