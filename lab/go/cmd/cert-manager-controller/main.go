// Command cert-manager-controller runs cert-manager's published controllers with the flags its chart passes.
//
// Upstream's own command is a nested module that is not published. The Venafi controllers are left out, since a module
// they need cannot be had everywhere; everything else that upstream enables by default is here, with its defaults.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	"sigs.k8s.io/yaml"

	configapi "github.com/cert-manager/cert-manager/pkg/apis/config/controller/v1alpha1"
	"github.com/cert-manager/cert-manager/pkg/controller"
	"github.com/cert-manager/cert-manager/pkg/controller/acmechallenges"
	"github.com/cert-manager/cert-manager/pkg/controller/acmeorders"
	ingresses "github.com/cert-manager/cert-manager/pkg/controller/certificate-shim/ingresses"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/acme"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/vault"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	certificatemetrics "github.com/cert-manager/cert-manager/pkg/controller/certificates/metrics"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	"github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	"github.com/cert-manager/cert-manager/pkg/controller/issuers"
	"github.com/cert-manager/cert-manager/pkg/healthz"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/acme"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/vault"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
)

const (
	leaderLockName = "cert-manager-controller"
	healthzTimeout = 20 * time.Second
)

// enabled is upstream's DefaultEnabledControllers without Venafi's.
var enabled = []string{
	issuers.ControllerName, clusterissuers.ControllerName, certificatemetrics.ControllerName, ingresses.ControllerName,
	acmeorders.ControllerName, acmechallenges.ControllerName, acme.CRControllerName, approver.ControllerName,
	ca.CRControllerName, selfsigned.CRControllerName, vault.CRControllerName, trigger.ControllerName,
	issuing.ControllerName, keymanager.ControllerName, requestmanager.ControllerName, readiness.ControllerName,
	revisionmanager.ControllerName,
}

type settings struct {
	controller.ContextOptions
	leaderNamespace                           string
	leaseDuration, renewDeadline, retryPeriod time.Duration
	metricsAddress, healthzAddress            string
	solverNameservers, recursiveNameservers   []string
	recursiveOnly                             bool
	solverRequestCPU, solverRequestMemory     string
	solverLimitsCPU, solverLimitsMemory       string
	workers                                   int
	disabled                                  []string
	extraLabels                               map[string]string
	logging                                   *logsapi.LoggingConfiguration
}

func parse(arguments []string) (*settings, error) {
	s := &settings{logging: logsapi.NewLoggingConfiguration()}
	s.ClusterIssuerAmbientCredentials = true
	s.ACMEHTTP01SolverRunAsNonRoot = true
	s.DefaultIssuerKind, s.DefaultIssuerGroup = "Issuer", "cert-manager.io"
	s.DefaultAutoCertificateAnnotations = []string{"kubernetes.io/tls-acme"}
	s.CopiedAnnotationPrefixes = []string{"*", "-kubectl.kubernetes.io/", "-fluxcd.io/", "-argocd.argoproj.io/"}
	flags := pflag.NewFlagSet("cert-manager-controller", pflag.ContinueOnError)
	file := flags.String("config", "", "path to a ControllerConfiguration; flags go before it")
	flags.Float32Var(&s.KubernetesAPIQPS, "kube-api-qps", 20, "")
	flags.IntVar(&s.KubernetesAPIBurst, "kube-api-burst", 50, "")
	flags.StringVar(&s.Kubeconfig, "kubeconfig", "", "path to a kubeconfig; in-cluster otherwise")
	flags.StringVar(&s.Namespace, "namespace", "", "limit to one namespace")
	flags.StringVar(&s.ClusterResourceNamespace, "cluster-resource-namespace", "kube-system", "where cluster-scoped resources' Secrets lie")
	flags.StringVar(&s.leaderNamespace, "leader-election-namespace", "kube-system", "namespace of the lease")
	flags.DurationVar(&s.leaseDuration, "leader-election-lease-duration", 60*time.Second, "")
	flags.DurationVar(&s.renewDeadline, "leader-election-renew-deadline", 40*time.Second, "")
	flags.DurationVar(&s.retryPeriod, "leader-election-retry-period", 15*time.Second, "")
	flags.StringVar(&s.HTTP01SolverImage, "acme-http01-solver-image", "", "image of solver Pods")
	flags.StringVar(&s.HTTP01SolverRuntimeClassName, "acme-http01-solver-runtime-class-name", "", "")
	flags.StringVar(&s.solverRequestCPU, "acme-http01-solver-resource-request-cpu", "10m", "")
	flags.StringVar(&s.solverRequestMemory, "acme-http01-solver-resource-request-memory", "64Mi", "")
	flags.StringVar(&s.solverLimitsCPU, "acme-http01-solver-resource-limits-cpu", "100m", "")
	flags.StringVar(&s.solverLimitsMemory, "acme-http01-solver-resource-limits-memory", "64Mi", "")
	flags.StringToStringVar(&s.extraLabels, "acme-http01-solver-extra-labels", nil, "")
	flags.StringSliceVar(&s.solverNameservers, "acme-http01-solver-nameservers", nil, "IP:port, comma separated")
	flags.StringSliceVar(&s.recursiveNameservers, "dns01-recursive-nameservers", nil, "IP:port, comma separated")
	flags.BoolVar(&s.recursiveOnly, "dns01-recursive-nameservers-only", false, "")
	flags.DurationVar(&s.DNS01CheckRetryPeriod, "dns01-check-retry-period", 10*time.Second, "also paces the HTTP-01 self-check")
	flags.StringVar(&s.DefaultIssuerName, "default-issuer-name", "", "")
	flags.StringVar(&s.DefaultIssuerKind, "default-issuer-kind", s.DefaultIssuerKind, "")
	flags.StringVar(&s.DefaultIssuerGroup, "default-issuer-group", s.DefaultIssuerGroup, "")
	flags.IntVar(&s.workers, "concurrent-workers", 5, "workers of each controller")
	flags.IntVar(&s.MaxConcurrentChallenges, "max-concurrent-challenges", 60, "")
	flags.BoolVar(&s.EnableOwnerRef, "enable-certificate-owner-ref", false, "")
	flags.BoolVar(&s.EnableGatewayAPI, "enable-gateway-api", false, "")
	flags.DurationVar(&s.CertificateRequestMinimumBackoffDuration, "certificate-request-minimum-backoff-duration", time.Hour, "")
	flags.DurationVar(&s.CertificateRequestMaximumBackoffDuration, "certificate-request-maximum-backoff-duration", 32*time.Hour, "")
	flags.StringSliceVar(&s.disabled, "controllers", nil, "-name disables a controller")
	flags.StringVar(&s.metricsAddress, "metrics-listen-address", "0.0.0.0:9402", "")
	flags.StringVar(&s.healthzAddress, "healthz-listen-address", "0.0.0.0:9403", "")
	logf.AddFlags(s.logging, flags)
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	if *file != "" {
		if err := configure(s, flags, *file); err != nil {
			return nil, fmt.Errorf("%s: %w", *file, err)
		}
	}
	for _, given := range []struct {
		text   string
		target *resource.Quantity
	}{
		{s.solverRequestCPU, &s.HTTP01SolverResourceRequestCPU},
		{s.solverRequestMemory, &s.HTTP01SolverResourceRequestMemory},
		{s.solverLimitsCPU, &s.HTTP01SolverResourceLimitsCPU},
		{s.solverLimitsMemory, &s.HTTP01SolverResourceLimitsMemory},
	} {
		if err := quantity(given.text, given.target); err != nil {
			return nil, err
		}
	}
	s.HTTP01SolverNameservers = s.solverNameservers
	s.HTTP01SolverExtraLabels = s.extraLabels
	s.DNS01CheckAuthoritative = !s.recursiveOnly
	s.DNS01Nameservers = s.recursiveNameservers
	if len(s.DNS01Nameservers) == 0 {
		s.DNS01Nameservers = []string{"127.0.0.1:53"}
	}
	return s, nil
}

// configure takes over what the file says of numbers that no flag was given for. Other fields of upstream's are refused.
func configure(s *settings, flags *pflag.FlagSet, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var said configapi.ControllerConfiguration
	if err := yaml.UnmarshalStrict(text, &said); err != nil {
		return err
	}
	if qps := said.KubernetesAPIQPS; qps != nil && !flags.Changed("kube-api-qps") {
		s.KubernetesAPIQPS = *qps
	}
	for _, given := range []struct {
		number *int32
		flag   string
		target *int
	}{
		{said.KubernetesAPIBurst, "kube-api-burst", &s.KubernetesAPIBurst},
		{said.NumberOfConcurrentWorkers, "concurrent-workers", &s.workers},
		{said.MaxConcurrentChallenges, "max-concurrent-challenges", &s.MaxConcurrentChallenges},
	} {
		if given.number != nil && !flags.Changed(given.flag) {
			*given.target = int(*given.number)
		}
	}
	known := configapi.ControllerConfiguration{
		TypeMeta: said.TypeMeta, KubernetesAPIQPS: said.KubernetesAPIQPS, KubernetesAPIBurst: said.KubernetesAPIBurst,
		NumberOfConcurrentWorkers: said.NumberOfConcurrentWorkers, MaxConcurrentChallenges: said.MaxConcurrentChallenges,
	}
	if !reflect.DeepEqual(said, known) {
		return errors.New("only kubernetesAPIQPS, kubernetesAPIBurst, numberOfConcurrentWorkers and " +
			"maxConcurrentChallenges are understood here")
	}
	return nil
}

func quantity(text string, target *resource.Quantity) error {
	parsed, err := resource.ParseQuantity(text)
	if err != nil {
		return fmt.Errorf("%q: %w", text, err)
	}
	*target = parsed
	return nil
}

func run(ctx context.Context, s *settings) error {
	log := logf.Log.WithName("controller")
	ctx = logf.NewContext(ctx, log)
	// Leadership lost means that this process must not go on working.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	factory, err := controller.NewContextFactory(ctx, s.ContextOptions)
	if err != nil {
		return err
	}
	base, err := factory.Build()
	if err != nil {
		return err
	}
	var listen net.ListenConfig
	if s.metricsAddress != "0" {
		// as cert-manager's own command does, before the server registers what it has
		informers := base.SharedInformerFactory
		base.Metrics.SetupACMECollector(informers.Acme().V1().Challenges().Lister())
		base.Metrics.SetupCertificateCollector(informers.Certmanager().V1().Certificates().Lister())
		base.Metrics.SetupIssuerCollector(informers.Certmanager().V1().Issuers().Lister())
		base.Metrics.SetupClusterIssuerCollector(informers.Certmanager().V1().ClusterIssuers().Lister())
		listener, err := listen.Listen(ctx, "tcp", s.metricsAddress)
		if err != nil {
			return err
		}
		server := base.Metrics.NewServer(listener)
		group.Go(func() error {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		group.Go(func() error { <-ctx.Done(); return server.Close() })
	}
	health := healthz.NewServer(healthzTimeout)
	listener, err := listen.Listen(ctx, "tcp", s.healthzAddress)
	if err != nil {
		return err
	}
	group.Go(func() error { return health.Start(ctx, listener) })

	group.Go(func() error {
		defer cancel()
		return elect(ctx, s, health, func(ctx context.Context) error { return work(ctx, s, factory, base) })
	})
	return group.Wait()
}

func elect(ctx context.Context, s *settings, health *healthz.Server, lead func(context.Context) error) error {
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	identity := fmt.Sprintf("%s-%d", host, os.Getpid())
	lock, err := resourcelock.New(resourcelock.LeasesResourceLock, s.leaderNamespace, leaderLockName,
		client.CoreV1(), client.CoordinationV1(), resourcelock.ResourceLockConfig{Identity: identity})
	if err != nil {
		return err
	}
	var failed error
	leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: s.leaseDuration, RenewDeadline: s.renewDeadline, RetryPeriod: s.retryPeriod,
		ReleaseOnCancel: true, WatchDog: health.LeaderHealthzAdaptor,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) { failed = lead(ctx) },
			OnStoppedLeading: func() {},
		},
	})
	return failed
}

func work(ctx context.Context, s *settings, factory *controller.ContextFactory, base *controller.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, name := range enabled {
		skip := false
		for _, other := range s.disabled {
			skip = skip || strings.TrimPrefix(other, "-") == name && strings.HasPrefix(other, "-")
		}
		if skip {
			continue
		}
		built, err := controller.Known()[name](factory)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		group.Go(func() error {
			if err := built.Run(s.workers, ctx); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	base.SharedInformerFactory.Start(ctx.Done())
	base.KubeSharedInformerFactory.Start(ctx.Done())
	base.HTTP01ResourceMetadataInformersFactory.Start(ctx.Done())
	if base.GatewaySolverEnabled {
		base.GWShared.Start(ctx.Done())
	}
	return group.Wait()
}

func main() {
	logf.InitLogs()
	defer logs.FlushLogs()
	s, err := parse(os.Args[1:])
	if err == nil {
		err = logf.ValidateAndApply(s.logging)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cert-manager-controller:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "cert-manager-controller:", err)
		os.Exit(1)
	}
}
