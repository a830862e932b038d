package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"

	"github.com/portsplice/portsplice/internal/exporter"
)

// exporterCommand is the command that serves metrics.
func exporterCommand() *cobra.Command {
	var listen string
	c := &cobra.Command{
		Use:   "exporter",
		Short: "Serve metrics of all ports to Prometheus",
		Long: `Serve metrics of all ports and workers of this host to Prometheus, at /metrics,
until interrupted. Workers are asked at each scrape. As root it sees the ports of
every user and network namespace; others see their own in this one, and those
of their own rootless dockerd.

The two histograms are native ones: Prometheus takes them with
--enable-feature=native-histograms. docs/operations.md says what each metric means.
A dashboard and alert rules are in contrib/.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return fmt.Errorf("--listen %s: %w", listen, err)
			}
			logger := log.New(c.ErrOrStderr(), "portsplicectl: ", 0)
			logger.Printf("metrics are at http://%v/metrics", l.Addr())
			return serveMetrics(ctx, l, exporter.New(version, func(err error) { logger.Print(err) }), logger)
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:9747", "address and port to serve at")
	return c
}

// serveMetrics serves until the context ends. It closes the listener.
func serveMetrics(ctx context.Context, l net.Listener, c prometheus.Collector, logger *log.Logger) error {
	registry := prometheus.NewRegistry()
	if err := registry.Register(c); err != nil {
		return errors.Join(err, l.Close())
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            logger,
		ErrorHandling:       promhttp.ContinueOnError, // one port that is amiss does not hide the others
		MaxRequestsInFlight: 4,
	}))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, `<title>portsplice</title><a href="/metrics">Metrics of portsplice</a>`) // who asks notices
	})
	server := http.Server{
		Handler: mux, ErrorLog: logger,
		ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute, MaxHeaderBytes: 64 << 10,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	// A scrape that is under way has as long as a worker that does not answer.
	bounded, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := server.Shutdown(bounded)
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
