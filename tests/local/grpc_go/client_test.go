// A grpc-go client of a predictor. Whoever listens on the port, each check must pass; ../test_grpc_go.py runs them.
// Messages are made from what reflection describes, so no code is generated.
package grpcgo

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

const (
	service  = "inference.GRPCInferenceService"
	patience = 60 * time.Second
	// As the test's Python side sets them.
	mostBytes = 64_000_000
	manyCalls = 1000
)

var (
	iris    = os.Getenv("SERVERY_TEST_IRIS")    // address of a predictor of iris
	echo    = os.Getenv("SERVERY_TEST_ECHO")    // of a model that answers what it is asked; it waits at an empty row
	entered = os.Getenv("SERVERY_TEST_ENTERED") // a named pipe that it writes to when it waits
	release = os.Getenv("SERVERY_TEST_RELEASE") // one that it reads from to end the wait
)

// client is one connection, and what reflection says of the service.
type client struct {
	*grpc.ClientConn
	methods protoreflect.MethodDescriptors
}

func connect(t *testing.T, address string, options ...grpc.DialOption) client {
	t.Helper()
	options = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
	}, options...)
	connection, err := grpc.NewClient(address, options...)
	must(t, err)
	t.Cleanup(func() { _ = connection.Close() })
	return client{connection, described(t, connection)}
}

func described(t *testing.T, connection *grpc.ClientConn) protoreflect.MethodDescriptors {
	t.Helper()
	stream, err := reflection.NewServerReflectionClient(connection).ServerReflectionInfo(within(t, patience))
	must(t, err)
	asked := &reflection.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service}
	must(t, stream.Send(&reflection.ServerReflectionRequest{MessageRequest: asked}))
	answer, err := stream.Recv()
	must(t, err)
	must(t, stream.CloseSend())
	// To its end: a stream that is still open counts among those that the server allows at once.
	if _, err := stream.Recv(); err != io.EOF {
		t.Fatalf("the end expected, found %v", err)
	}
	files := &descriptorpb.FileDescriptorSet{}
	for _, raw := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
		file := &descriptorpb.FileDescriptorProto{}
		must(t, proto.Unmarshal(raw, file))
		files.File = append(files.File, file)
	}
	registry, err := protodesc.NewFiles(files)
	must(t, err)
	found, err := registry.FindDescriptorByName(service)
	must(t, err)
	return found.(protoreflect.ServiceDescriptor).Methods()
}

// ask calls a method with a message given as JSON; the answer comes as JSON's values.
func (c client) ask(ctx context.Context, method string, request any, options ...grpc.CallOption) (map[string]any, error) {
	described := c.methods.ByName(protoreflect.Name(method))
	asked, answered := dynamicpb.NewMessage(described.Input()), dynamicpb.NewMessage(described.Output())
	text, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	if err := protojson.Unmarshal(text, asked); err != nil {
		return nil, err
	}
	if err := c.Invoke(ctx, "/"+service+"/"+method, asked, answered, options...); err != nil {
		return nil, err
	}
	text, err = protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(answered)
	if err != nil {
		return nil, err
	}
	found := map[string]any{}
	return found, json.Unmarshal(text, &found)
}

type object = map[string]any

var rows = []float64{6.8, 2.8, 4.8, 1.4, 6.0, 3.4, 4.5, 1.6}

func tensor(shape []int, more object) object {
	described := object{"name": "x", "datatype": "FP64", "shape": shape}
	for key, value := range more {
		described[key] = value
	}
	return described
}

func packed(values []float64) []byte {
	raw := make([]byte, 0, 8*len(values))
	for _, value := range values {
		raw = binary.LittleEndian.AppendUint64(raw, math.Float64bits(value))
	}
	return raw
}

// rawly asks for the rows' answer with raw contents; a []byte is base64 in JSON, as protojson wants it.
func rawly(values []float64, shape ...int) object {
	return object{"model_name": "iris", "inputs": []object{tensor(shape, nil)}, "raw_input_contents": [][]byte{packed(values)}}
}

func typed() object {
	contents := object{"contents": object{"fp64_contents": rows}}
	return object{"model_name": "iris", "inputs": []object{tensor([]int{2, 4}, contents)}}
}

func rawOutput(t *testing.T, answer object) []byte {
	t.Helper()
	var outputs struct {
		Raw [][]byte `json:"rawOutputContents"`
	}
	text, err := json.Marshal(answer)
	must(t, err)
	must(t, json.Unmarshal(text, &outputs))
	if len(outputs.Raw) != 1 {
		t.Fatalf("one raw output expected, found %d in %s", len(outputs.Raw), text)
	}
	return outputs.Raw[0]
}

func within(t *testing.T, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustEnd(t *testing.T, err error, code codes.Code) {
	t.Helper()
	if status.Code(err) != code {
		t.Fatalf("%v expected, found %v", code, err)
	}
}

// Iris; these run beside each other.

func mustAnswerIris(t *testing.T, c client, options ...grpc.CallOption) {
	t.Helper()
	answer, err := c.ask(within(t, patience), "ModelInfer", rawly(rows, 2, 4), options...)
	must(t, err)
	if found := rawOutput(t, answer); string(found) != string([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}) {
		t.Fatalf("both rows are of class 1, found %v", found)
	}
}

func TestServerIsLiveAndReadyAndSaysWhatItIs(t *testing.T) {
	t.Parallel()
	c := connect(t, iris)
	for method, key := range map[string]string{"ServerLive": "live", "ServerReady": "ready"} {
		answer, err := c.ask(within(t, patience), method, object{})
		must(t, err)
		if answer[key] != true {
			t.Fatalf("%s: %v", method, answer)
		}
	}
	answer, err := c.ask(within(t, patience), "ModelMetadata", object{"name": "iris"})
	must(t, err)
	if answer["name"] != "iris" {
		t.Fatal(answer)
	}
}

func TestContentsAreAnsweredInKind(t *testing.T) {
	t.Parallel()
	c := connect(t, iris)
	mustAnswerIris(t, c)
	answer, err := c.ask(within(t, patience), "ModelInfer", typed())
	must(t, err)
	contents := answer["outputs"].([]any)[0].(object)["contents"].(object)
	if found := fmt.Sprint(contents["int64Contents"]); found != "[1 1]" {
		t.Fatalf("both rows are of class 1, found %v", answer)
	}
}

func TestErrorsKeepTheirCodeAndEveryLetter(t *testing.T) {
	t.Parallel()
	c := connect(t, iris)
	request := rawly(rows, 2, 4)
	request["model_name"] = "größer"
	_, err := c.ask(within(t, patience), "ModelInfer", request)
	mustEnd(t, err, codes.NotFound)
	if !strings.Contains(status.Convert(err).Message(), "größer") {
		t.Fatal(err)
	}
	_, err = c.ask(within(t, patience), "ModelInfer", rawly(rows, 4, 2))
	mustEnd(t, err, codes.InvalidArgument)
	mustAnswerIris(t, c)
}

func TestCompressedRequestsAreRead(t *testing.T) {
	t.Parallel()
	mustAnswerIris(t, connect(t, iris), grpc.UseCompressor(gzip.Name))
}

func TestHealthIsToldAndWatched(t *testing.T) {
	t.Parallel()
	stub := health.NewHealthClient(connect(t, iris))
	answer, err := stub.Check(within(t, patience), &health.HealthCheckRequest{Service: service})
	must(t, err)
	watch, err := stub.Watch(within(t, patience), &health.HealthCheckRequest{})
	must(t, err)
	watched, err := watch.Recv()
	must(t, err)
	for _, found := range []*health.HealthCheckResponse{answer, watched} {
		if found.Status != health.HealthCheckResponse_SERVING {
			t.Fatal(found)
		}
	}
}

// pinged is a connection that tells of an answer to a keepalive ping; grpc-go reads from one goroutine.
type pinged struct {
	net.Conn
	read   []byte
	answer chan struct{}
	once   sync.Once
}

// A frame's head, type PING, acknowledged; then eight bytes of zero, which are grpc-go's own.
const pingAnswer = "\x00\x00\x08\x06\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func (p *pinged) Read(into []byte) (int, error) {
	size, err := p.Conn.Read(into)
	p.read = append(p.read, into[:size]...)
	if strings.Contains(string(p.read), pingAnswer) {
		p.once.Do(func() { close(p.answer) })
	}
	p.read = p.read[max(0, len(p.read)-len(pingAnswer)+1):]
	return size, err
}

func TestKeepalivePingsAreAnswered(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	opened := 0
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		opened++
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		return &pinged{Conn: connection, answer: answer}, err
	}
	// Ten seconds is the least that grpc-go takes.
	often := keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}
	c := connect(t, iris, grpc.WithContextDialer(dial), grpc.WithKeepaliveParams(often))
	mustAnswerIris(t, c)
	select {
	case <-answer:
	case <-within(t, patience).Done():
		t.Fatal("no PING was answered")
	}
	if state := c.GetState(); state != connectivity.Ready {
		t.Fatalf("the connection is %v", state)
	}
	mustAnswerIris(t, c)
	if opened != 1 {
		t.Fatalf("%d connections, for the first did not last", opened)
	}
}

// Echo; one at a time, for its model waits in some.

func waiting() object { return rawly(nil, 1, 0) }

// toEnter returns once the model waits.
func toEnter(t *testing.T) {
	t.Helper()
	_, err := os.ReadFile(entered)
	must(t, err)
}

// toLeave ends the wait.
func toLeave(t *testing.T) {
	t.Helper()
	must(t, os.WriteFile(release, nil, 0))
}

func mustEcho(t *testing.T, c client, values []float64, options ...grpc.CallOption) {
	t.Helper()
	answer, err := c.ask(within(t, patience), "ModelInfer", rawly(values, 1, len(values)), options...)
	must(t, err)
	if string(rawOutput(t, answer)) != string(packed(values)) {
		t.Fatalf("another answer than what was asked, of %d values", len(values))
	}
}

// hold makes the model wait for the call that it returns the end of.
func hold(t *testing.T, ctx context.Context, c client) <-chan error {
	ended := make(chan error, 1)
	go func() {
		_, err := c.ask(ctx, "ModelInfer", waiting())
		ended <- err
	}()
	toEnter(t)
	return ended
}

func TestDeadlineEndsACallAndNoOther(t *testing.T) {
	c := connect(t, echo)
	mustEnd(t, <-hold(t, within(t, 2*time.Second), c), codes.DeadlineExceeded)
	toLeave(t)
	mustEcho(t, c, rows)
}

func TestCancellingEndsACallAndNoOther(t *testing.T) {
	c := connect(t, echo)
	ctx, cancel := context.WithCancel(within(t, patience))
	ended := hold(t, ctx, c)
	cancel()
	mustEnd(t, <-ended, codes.Canceled)
	toLeave(t)
	mustEcho(t, c, rows)
}

func TestLongMessagesGoBothWays(t *testing.T) {
	long := make([]float64, 5_000_000)
	for index := range long {
		long[index] = float64(index)
	}
	room := grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(2*mostBytes), grpc.MaxCallSendMsgSize(2*mostBytes))
	c := connect(t, echo, room)
	mustEcho(t, c, long)
	mustEcho(t, c, long[:1_000_000], grpc.UseCompressor(gzip.Name))
	_, err := c.ask(within(t, patience), "ModelInfer", rawly(make([]float64, 9_000_000), 1, 9_000_000))
	mustEnd(t, err, codes.ResourceExhausted)
	// Compressed it is short, and not taken all the same.
	zeros := rawly(make([]float64, 9_000_000), 1, 9_000_000)
	_, err = c.ask(within(t, patience), "ModelInfer", zeros, grpc.UseCompressor(gzip.Name))
	mustEnd(t, err, codes.ResourceExhausted)
	// A client with less room gives the answer up; its connection goes on.
	_, err = c.ask(within(t, patience), "ModelInfer", rawly(long, 1, len(long)), grpc.MaxCallRecvMsgSize(1000))
	mustEnd(t, err, codes.ResourceExhausted)
	mustEcho(t, c, rows)
}

// counting tells when so many requests have left.
type counting struct {
	left atomic.Int64
	all  chan struct{}
}

func (c *counting) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (c *counting) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c *counting) HandleConn(context.Context, stats.ConnStats)                       {}
func (c *counting) HandleRPC(_ context.Context, event stats.RPCStats) {
	if _, sent := event.(*stats.OutPayload); sent && c.left.Add(-1) == 0 {
		close(c.all)
	}
}

func TestAThousandCallsAreOpenAtOnceOnOneConnection(t *testing.T) {
	sent := &counting{all: make(chan struct{})}
	sent.left.Store(1 + manyCalls) // reflection's is the first
	c := connect(t, echo, grpc.WithStatsHandler(sent))
	// Nothing is answered while the model waits, so all the others are open until it is let go.
	held := hold(t, within(t, patience), c)
	type answer struct {
		values []float64
		object
		error
	}
	answers := make(chan answer)
	for number := 1; number < manyCalls; number++ {
		go func() {
			values := []float64{float64(number), float64(-number)}
			found, err := c.ask(within(t, patience), "ModelInfer", rawly(values, 1, 2))
			answers <- answer{values, found, err}
		}()
	}
	<-sent.all
	toLeave(t)
	must(t, <-held)
	for number := 1; number < manyCalls; number++ {
		found := <-answers
		must(t, found.error)
		if string(rawOutput(t, found.object)) != string(packed(found.values)) {
			t.Fatalf("another call's answer to %v", found.values)
		}
	}
}
