package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// echoService is a gRPC service without generated code: Say answers once, Talk answers every
// message of a stream.
var echoService = grpc.ServiceDesc{
	ServiceName: "shunt.Echo",
	HandlerType: (*any)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Say", Handler: say}},
	Streams:     []grpc.StreamDesc{{StreamName: "Talk", Handler: talkBack, ServerStreams: true, ClientStreams: true}},
}

func say(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // grpc's order
	var said wrapperspb.StringValue
	if err := decode(&said); err != nil {
		return nil, err
	}
	if said.Value == "" {
		return nil, status.Error(codes.FailedPrecondition, "nothing was said: ünïcode\n")
	}
	values := metadata.ValueFromIncomingContext(ctx, "x-word-bin")
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-heard-bin", strings.Join(values, ",")))
	return wrapperspb.String("heard " + said.Value), nil
}

func talkBack(_ any, stream grpc.ServerStream) error {
	for {
		var said wrapperspb.StringValue
		if err := stream.RecvMsg(&said); errors.Is(err, io.EOF) {
			return status.Error(codes.Aborted, "the end")
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(wrapperspb.String("heard " + said.Value)); err != nil {
			return err
		}
	}
}

// checkGRPC makes a call, one that fails, and a conversation.
func checkGRPC(t *testing.T, w *way) {
	server := grpc.NewServer()
	server.RegisterService(&echoService, nil)
	listener := w.listen(t, grpcPort)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	conn, err := grpc.NewClient("passthrough:///"+w.server(grpcPort).String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return w.dial(ctx, grpcPort) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	const words = "\x00\xff words"
	var trailer metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-word-bin", words)
	var answer wrapperspb.StringValue
	if err := conn.Invoke(ctx, "/shunt.Echo/Say", wrapperspb.String("this"), &answer, grpc.Trailer(&trailer)); err != nil {
		t.Fatal(err)
	}
	if got := trailer.Get("x-heard-bin"); answer.Value != "heard this" || len(got) != 1 || got[0] != words {
		t.Errorf("said this, the answer is %q, its trailers are %q", answer.Value, trailer)
	}
	err = conn.Invoke(ctx, "/shunt.Echo/Say", wrapperspb.String(""), &answer)
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "nothing was said: ünïcode\n" {
		t.Errorf("a call that fails: %v", err)
	}
	if err := converse(t.Context(), conn); err != nil {
		t.Error(err)
	}
	w.wantLogged(logLine{"filter_chain": "http", "protocol": "HTTP/2", "path": "/shunt.Echo/Talk", "response_code": 200})
}

// converse sends messages in turns: each must arrive while the stream is open.
func converse(ctx context.Context, conn *grpc.ClientConn) error {
	stream, err := conn.NewStream(ctx, &echoService.Streams[0], "/shunt.Echo/Talk")
	if err != nil {
		return err
	}
	for i := range 100 {
		said := fmt.Sprint(i, strings.Repeat(".", i*i))
		if err := stream.SendMsg(wrapperspb.String(said)); err != nil {
			return err
		}
		var heard wrapperspb.StringValue
		if err := stream.RecvMsg(&heard); err != nil || heard.Value != "heard "+said {
			return fmt.Errorf("said %.20q, heard %.20q: %w", said, heard.Value, err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	err = stream.RecvMsg(&wrapperspb.StringValue{})
	if s := status.Convert(err); s.Code() != codes.Aborted || s.Message() != "the end" {
		return fmt.Errorf("the end of the conversation: %w", err)
	}
	return nil
}
