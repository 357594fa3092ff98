// Command cert-manager-cainjector runs cert-manager's CA injector with the flags its chart passes.
//
// Upstream's command is a nested module that is not published; the reconcilers it registers are these.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/cert-manager/cert-manager/pkg/controller/cainjector"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/util"
)

func run(ctx context.Context) error {
	logging := logsapi.NewLoggingConfiguration()
	flags := pflag.NewFlagSet("cert-manager-cainjector", pflag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "path to a kubeconfig; in-cluster otherwise")
	namespace := flags.String("namespace", "", "limit to one namespace")
	leaderNamespace := flags.String("leader-election-namespace", "kube-system", "namespace of the lease")
	lease := flags.Duration("leader-election-lease-duration", 60*time.Second, "")
	deadline := flags.Duration("leader-election-renew-deadline", 40*time.Second, "")
	retry := flags.Duration("leader-election-retry-period", 15*time.Second, "")
	metrics := flags.String("metrics-listen-address", "0.0.0.0:9402", "")
	logf.AddFlags(logging, flags)
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	if err := logf.ValidateAndApply(logging); err != nil {
		return err
	}
	ctrl.SetLogger(logf.Log)
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		admissionv1.AddToScheme, corev1.AddToScheme, apiextensionsv1.AddToScheme, apiregistrationv1.AddToScheme,
		cmapi.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	// The field manager of its writes derives from the user agent.
	config = util.RestConfigWithUserAgent(config, "cainjector")
	caches := cache.Options{}
	if *namespace != "" {
		caches.DefaultNamespaces = map[string]cache.Config{*namespace: {}}
	}
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme, Cache: caches,
		// Only the metadata of Secrets is cached, as upstream does it.
		Client:         client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		LeaderElection: true, LeaderElectionNamespace: *leaderNamespace,
		LeaderElectionID: "cert-manager-cainjector-leader-election", LeaderElectionReleaseOnCancel: true,
		LeaseDuration: lease, RenewDeadline: deadline, RetryPeriod: retry,
		Metrics: server.Options{BindAddress: *metrics},
	})
	if err != nil {
		return err
	}
	err = cainjector.RegisterAllInjectors(ctx, manager, cainjector.SetupOptions{
		Namespace: *namespace, EnableCertificatesDataSource: true,
		EnabledReconcilersFor: map[string]bool{
			cainjector.MutatingWebhookConfigurationName: true, cainjector.ValidatingWebhookConfigurationName: true,
			cainjector.APIServiceName: true, cainjector.CustomResourceDefinitionName: true,
		},
	})
	if err != nil {
		return err
	}
	return manager.Start(ctx)
}

func main() {
	logf.InitLogs()
	defer logs.FlushLogs()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "cert-manager-cainjector:", err)
		os.Exit(1)
	}
}
