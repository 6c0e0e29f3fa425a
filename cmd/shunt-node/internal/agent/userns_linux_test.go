package agent

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/shunt-dev/shunt/initimage/interception"
	"github.com/shunt-dev/shunt/initimage/kernel"
	"github.com/shunt-dev/shunt/test/netns"
)

// userNamespaceEnv is set in the process that acts as the agent in its container: root, but for its
// capabilities.
const userNamespaceEnv = "SHUNT_NODE_TEST_USER_NAMESPACE"

// TestUserNamespace sets up a pod with hostUsers: false, whose network namespace belongs to a user namespace,
// with the agent's capabilities and no others.
func TestUserNamespace(t *testing.T) {
	const path = "/proc/self/fd/3" // nobody without SYS_PTRACE may open that of the other process
	if os.Getenv(userNamespaceEnv) != "" {
		a := newAgent(t, true)
		rules := interception.NodeRules{Spec: interception.DefaultFor(interception.SystemTProxy), IPv6: interception.IPv6Auto}
		p := pod{sandbox: "s", netns: path, text: rules.String()}
		if err := a.begin(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		awaitIdle(t, a)
		if got := receiptIn(t, p); got.State != kernel.ReceiptDone || got.Detail != "" {
			t.Errorf("%+v", got)
		}
		return
	}
	netns.Require(t, "ip", "setpriv")
	child := exec.CommandContext(t.Context(), "sh", "-ec", "ip link set lo up; ip link add eth0 type veth peer name eth1; "+
		"ip address add 10.0.0.1/24 dev eth0; ip link set eth0 up; ip link set eth1 up; "+
		"ip route add default via 10.0.0.2; echo ready; exec cat")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	// One after the other, as container runtimes do: only so root of the user namespace owns its files in /proc.
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, Unshareflags: syscall.CLONE_NEWNET, UidMappings: ids, GidMappings: ids,
		Credential: &syscall.Credential{}, Pdeathsig: syscall.SIGKILL,
	}
	child.Stderr = t.Output()
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = child.Wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	namespace, err := os.Open("/proc/" + strconv.Itoa(child.Process.Pid) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	agent := exec.CommandContext(t.Context(), "setpriv", "--bounding-set=-all,+sys_admin,+net_admin", "--inh-caps=-all",
		"/proc/self/exe", "-test.run=^TestUserNamespace$")
	agent.Args[3] = os.Args[0]
	agent.Env = append(os.Environ(), userNamespaceEnv+"=1")
	agent.ExtraFiles = []*os.File{namespace}
	if said, err := agent.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}
