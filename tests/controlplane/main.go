// Command controlplane holds a whole Kubernetes control plane in one binary:
// etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl,
// each behind a sub-command of its own name.
//
// One binary links the shared libraries once, so it builds faster and is much
// smaller than five; and a machine without a container engine can still test
// against the real servers.
package main

import (
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubectlcmd "k8s.io/kubectl/pkg/cmd"

	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

const usage = "usage: controlplane etcd DATA_DIR CLIENT_URL | " +
	"kube-apiserver | kube-controller-manager | kube-scheduler | kubectl | version"

func main() {
	if len(os.Args) < 2 {
		fail(usage)
	}
	name := os.Args[1]
	os.Args = append([]string{name}, os.Args[2:]...)
	var command *cobra.Command
	switch name {
	case "etcd":
		if len(os.Args) != 3 {
			fail(usage)
		}
		runEtcd(os.Args[1], os.Args[2])
		return
	case "kube-apiserver":
		command = apiserver.NewAPIServerCommand()
	case "kube-controller-manager":
		command = controllers.NewControllerManagerCommand()
	case "kube-scheduler":
		command = scheduler.NewSchedulerCommand()
	case "kubectl":
		command = kubectlcmd.NewDefaultKubectlCommand()
	case "version":
		fmt.Println(version.Get().GitVersion)
		return
	default:
		fail(usage)
	}
	os.Exit(cli.Run(command))
}

// runEtcd serves one member on loopback. It never calls fsync: its data lives
// in a temporary folder and is worth nothing after the run.
func runEtcd(dir, client string) {
	clientURL, err := url.Parse(client)
	if err != nil {
		fail(err)
	}
	peerURL, err := url.Parse("http://127.0.0.1:0")
	if err != nil {
		fail(err)
	}
	config := embed.NewConfig()
	config.Dir = dir
	config.LogLevel = "error"
	config.UnsafeNoFsync = true
	config.ListenClientUrls = []url.URL{*clientURL}
	config.AdvertiseClientUrls = []url.URL{*clientURL}
	config.ListenPeerUrls = []url.URL{*peerURL}
	config.AdvertisePeerUrls = []url.URL{*peerURL}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	server, err := embed.StartEtcd(config)
	if err != nil {
		fail(err)
	}
	defer server.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	select {
	case err := <-server.Err():
		fail(err)
	case <-stop:
	}
}

func fail(reason any) {
	fmt.Fprintln(os.Stderr, reason)
	os.Exit(1)
}
