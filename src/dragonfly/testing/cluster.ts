/** For tests: a Dragonfly scheduler and the gRPC servers of its seed peers. The proxies of the peers are the test's own. */
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf'
import type { HostSchema } from '../proto/common_pb.ts'
import {
  HealthCheckRequestSchema,
  HealthCheckResponse_ServingStatus,
  HealthCheckResponseSchema,
} from '../proto/health_pb.ts'
import { ListHostsRequestSchema, ListHostsResponseSchema } from '../proto/scheduler_pb.ts'
import { type GrpcServer, type Reply, startGrpcServer } from './grpc-server.ts'

export type HostInit = MessageInitShape<typeof HostSchema>

export interface FakeScheduler extends AsyncDisposable {
  readonly endpoint: string
  readonly server: GrpcServer
  hosts: HostInit[]
  /** The kinds of hosts that were asked for. */
  readonly asked: Array<number | undefined>
  /** Instead of the hosts. */
  instead: Reply | undefined
}

export async function startScheduler(): Promise<FakeScheduler> {
  const server = await startGrpcServer({
    '/scheduler.v2.Scheduler/ListHosts': (message) => {
      scheduler.asked.push(fromBinary(ListHostsRequestSchema, message).type)
      const { hosts, instead } = scheduler
      return instead ?? { message: toBinary(ListHostsResponseSchema, create(ListHostsResponseSchema, { hosts })) }
    },
  })
  const scheduler: FakeScheduler = {
    endpoint: `http://127.0.0.1:${server.port}`,
    server,
    hosts: [],
    asked: [],
    instead: undefined,
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  }
  return scheduler
}

export interface FakePeer extends AsyncDisposable {
  readonly server: GrpcServer
  checks: number
  status: HealthCheckResponse_ServingStatus
  /** Instead of the status. */
  instead: Reply | undefined
  /** As the scheduler knows it. */
  host(name: string, proxyPort: number): HostInit
}

export async function startPeer(): Promise<FakePeer> {
  const server = await startGrpcServer({
    '/grpc.health.v1.Health/Check': (message) => {
      peer.checks += 1
      fromBinary(HealthCheckRequestSchema, message)
      const { status, instead } = peer
      return instead ?? { message: toBinary(HealthCheckResponseSchema, create(HealthCheckResponseSchema, { status })) }
    },
  })
  const peer: FakePeer = {
    server,
    checks: 0,
    status: HealthCheckResponse_ServingStatus.SERVING,
    instead: undefined,
    host: (name, proxyPort) => ({
      id: `127.0.0.1-${name}-seed`,
      type: 1,
      hostname: name,
      ip: '127.0.0.1',
      port: server.port,
      proxyPort,
      name,
    }),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  }
  return peer
}
