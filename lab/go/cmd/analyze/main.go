// Command analyze prints what `istioctl analyze` would report, as a JSON list: of YAML files, of a cluster, or of both.
//
// istioctl's own command may be built too, but it is many times as large; the analyzers are the same.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"

	"k8s.io/client-go/tools/clientcmd"

	"istio.io/istio/pkg/config/analysis/analyzers"
	"istio.io/istio/pkg/config/analysis/local"
	"istio.io/istio/pkg/config/resource"
	"istio.io/istio/pkg/kube"
	"istio.io/istio/pkg/log"
)

func run(out io.Writer) error {
	kubeconfig := flag.String("kubeconfig", "", "file that names the cluster to read; none: the files alone")
	namespace := flag.String("namespace", "", "report on objects of this namespace only")
	istio := flag.String("istio-namespace", "istio-system", "namespace of istiod")
	flag.Parse()

	quiet := log.DefaultOptions()
	quiet.OutputPaths, quiet.ErrorOutputPaths = []string{"stderr"}, []string{"stderr"}
	quiet.SetDefaultOutputLevel(log.OverrideScopeName, log.ErrorLevel)
	if err := log.Configure(quiet); err != nil {
		return err
	}

	analyzer := local.NewIstiodAnalyzer(
		analyzers.AllCombined(), resource.Namespace(*namespace), resource.Namespace(*istio), nil)
	if *kubeconfig != "" {
		rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: *kubeconfig}
		config := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{})
		client, err := kube.NewClient(config, "")
		if err != nil {
			return err
		}
		analyzer.AddRunningKubeSource(kube.EnableCrdWatcher(client))
	}
	var sources []local.ReaderSource
	for _, path := range flag.Args() {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		sources = append(sources, local.ReaderSource{Name: path, Reader: file})
	}
	if len(sources) > 0 {
		// the analyzers ask for Secrets, Services and Pods too, so the files may hold them
		if err := analyzer.AddTestReaderKubeSource(sources); err != nil {
			return err
		}
	}

	stop := make(chan struct{})
	defer close(stop)
	result, err := analyzer.Analyze(stop)
	if err != nil {
		return err
	}
	messages := []map[string]any{}
	for index := range result.Messages {
		message := &result.Messages[index]
		messages = append(messages, message.Unstructured(true))
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(messages)
}

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "analyze:", err)
		os.Exit(1)
	}
}
