package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"pillion/cmd/pillion/inject"
)

const webhookUsage = `Add pillion to pods as a Kubernetes API server creates them: a mutating webhook.

Usage:
    pillion webhook --tls-cert FILE --tls-key FILE [FLAGS]
    pillion webhook certificate DIRECTORY ...

It serves AdmissionReview of admission.k8s.io/v1 at https://HOST:8443/inject, and
answers with what "pillion inject" would add to the pod, as a JSON patch. A pod that
cannot have it is refused, with the reason. Which pods are asked about is for the
MutatingWebhookConfiguration to say: deploy/helm asks about those with the label
pillion/inject: "true". It knows no secrets, and asks neither Vault nor the cluster.

    --tls-cert, --tls-key FILE  certificate and key, PEM; renewed files are taken
                            over within a minute
    --listen ADDRESS        default :8443
    --metrics-listen ADDRESS  /metrics, /livez, /readyz (default :9180)

The sidecar is as "pillion help inject" says, by the same flags: --image, --config-map,
--plain, --clients, --languages, --no-proxy, --credential, --proxy-port,
--metrics-port, --audience, --uid, --cpu-request, --memory-request, --memory-limit,
and by the same annotations.

The log on standard error has a line an admission. SIGTERM ends it five seconds later,
when the API server has been told of its end; a second one at once.

Commands:
    certificate   make a certificate for it, and the authority that signed it

Example:
    pillion webhook --tls-cert tls.crt --tls-key tls.key --image registry.example/pillion:1.0
`

// webhookFlags are those of webhook.
type webhookFlags struct {
	injectFlags
	cert, key, listen, metricsListen string
}

func (a *app) webhookCommand() *cobra.Command {
	f := webhookFlags{injectFlags: injectFlags{Settings: inject.Defaults()}}
	cmd := &cobra.Command{
		Use: "webhook", Short: "Add pillion to pods as they are created", Long: webhookUsage, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := f.settings()
			if err != nil {
				return err
			}
			if f.cert == "" || f.key == "" {
				return usagef("--tls-cert and --tls-key are needed: API servers speak TLS alone; pillion webhook certificate makes both")
			}
			signals := make(chan os.Signal, 2)
			signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
			defer signal.Stop(signals)
			return a.serveWebhook(cmd.Context(), f, settings, signals)
		},
	}
	cmd.Flags().StringVar(&f.cert, "tls-cert", "", "")
	cmd.Flags().StringVar(&f.key, "tls-key", "", "")
	cmd.Flags().StringVar(&f.listen, "listen", ":8443", "")
	cmd.Flags().StringVar(&f.metricsListen, "metrics-listen", ":9180", "")
	f.add(cmd)
	cmd.AddCommand(a.webhookCertificateCommand())
	return cmd
}

// webhook is a running one.
type webhook struct {
	log   *slog.Logger
	files *certificateFiles
	ended atomic.Bool

	registry   *prometheus.Registry
	admissions *prometheus.CounterVec
	duration   prometheus.Histogram
}

func newWebhook(log *slog.Logger, cert, key string) *webhook {
	h := &webhook{
		log: log, files: &certificateFiles{what: "--tls-cert and --tls-key", cert: cert, key: key},
		registry: prometheus.NewRegistry(),
		admissions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pillion_webhook_admissions_total", Help: "Pods that the API server asked about, by what was done.",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pillion_webhook_admission_duration_seconds", Help: "Time of an admission.",
			Buckets: []float64{.001, .005, .025, .1, .5, 2.5},
		}),
	}
	registerProcess(h.registry)
	h.registry.MustRegister(h.admissions, h.duration, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "pillion_webhook_certificate_expiry_timestamp_seconds", Help: "When the webhook's certificate expires.",
	}, func() float64 { return seconds(h.files.expiry()) }))
	for _, r := range inject.Results {
		h.admissions.WithLabelValues(string(r))
	}
	return h
}

// drainWebhook is how long an API server may take to notice that a replica ends.
const drainWebhook = 5 * time.Second

func (a *app) serveWebhook(ctx context.Context, f webhookFlags, settings inject.Settings, signals <-chan os.Signal) error {
	log := slog.New(slog.NewJSONHandler(a.stderr, nil))
	h := newWebhook(log, f.cert, f.key)
	if _, err := h.files.certificate(nil); err != nil {
		return err
	}
	failed := make(chan error, 2)
	var servers []*http.Server
	serve := func(role, address string, server *http.Server) error {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("listening on the %s address %s: %w; choose another one", role, address, err)
		}
		server.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
		servers = append(servers, server)
		log.Info("listening", "role", role, "address", listener.Addr().String())
		go func() {
			if server.TLSConfig != nil {
				failed <- server.ServeTLS(listener, "", "")
			} else {
				failed <- server.Serve(listener)
			}
		}()
		return nil
	}
	defer func() {
		for _, s := range servers {
			_ = s.Close()
		}
	}()
	if err := serve("webhook", f.listen, h.server(settings)); err != nil {
		return err
	}
	if err := serve("metrics", f.metricsListen, metricsServer(metricsHandler(h.registry, h.readiness))); err != nil {
		return err
	}
	log.Info("ready", "version", version, "image", settings.Image, "certificate_expires", h.files.expiry())
	select {
	case err := <-failed:
		return fmt.Errorf("serving: %w", err)
	case <-signals:
	case <-ctx.Done():
	}
	return h.drain(servers, signals)
}

// drain ends the servers when the API server has had time to notice.
func (h *webhook) drain(servers []*http.Server, signals <-chan os.Signal) error {
	h.ended.Store(true)
	h.log.Info("draining", "for", drainWebhook.String())
	select {
	case <-time.After(drainWebhook):
	case <-signals:
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainWebhook)
	defer cancel()
	var errs []error
	for _, s := range servers {
		errs = append(errs, s.Shutdown(ctx))
	}
	h.log.Info("ended", "cut", errors.Join(errs...) != nil)
	return nil
}

func (h *webhook) server(settings inject.Settings) *http.Server {
	mux := http.NewServeMux()
	mux.Handle("/inject", &inject.Webhook{Settings: settings, Done: h.admitted})
	return &http.Server{
		Handler:           mux,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: h.files.certificate},
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
	}
}

// webhookReadiness is the body of its /readyz.
type webhookReadiness struct {
	Ready              bool      `json:"ready"`
	Draining           bool      `json:"draining"`
	CertificateExpires time.Time `json:"certificate_expires"`
}

func (h *webhook) readiness() (bool, any) {
	r := webhookReadiness{Draining: h.ended.Load(), CertificateExpires: h.files.expiry()}
	r.Ready = !r.Draining && time.Now().Before(r.CertificateExpires)
	return r.Ready, r
}

// admitted is Done of the webhook: a line and the metrics.
func (h *webhook) admitted(a inject.Admission) {
	h.admissions.WithLabelValues(string(a.Result)).Inc()
	h.duration.Observe(a.Took.Seconds())
	attrs := []any{"result", string(a.Result), "namespace", a.Namespace, "pod", a.Pod, "uid", a.UID, "dry_run", a.DryRun, "ms", milliseconds(a.Took)}
	if len(a.Report.Clients) > 0 {
		attrs = append(attrs, "clients", a.Report.Clients)
	}
	if len(a.Report.Warnings) > 0 {
		attrs = append(attrs, "warnings", a.Report.Warnings)
	}
	if a.Problem != "" {
		h.log.Warn("admission", append(attrs, "problem", oneLine(a.Problem))...)
		return
	}
	h.log.Info("admission", attrs...)
}
