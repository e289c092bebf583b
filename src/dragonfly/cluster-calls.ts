/** What is asked of a cluster by gRPC. Loaded when there is a scheduler to ask: the messages cost every start of a program some tens of milliseconds else. */
import type { Host } from './proto/common_pb.ts'
import { Health, HealthCheckResponse_ServingStatus } from './proto/health_pb.ts'
import { Scheduler } from './proto/scheduler_pb.ts'
import { type CallOptions, unaryCall } from './unary-call.ts'

/** Seed peers, among a scheduler's kinds of hosts. */
const SEED = 1

export interface ListedHosts {
  readonly hosts: readonly Host[]
  /** The address of the scheduler, as the socket knows it. */
  readonly remoteAddress: string
}

/** The seed peers of the scheduler at `http://HOST:PORT`, as it tells them. Throws DragonflyError. */
export async function listHosts(scheduler: string, options: CallOptions): Promise<ListedHosts> {
  const { message, remoteAddress } = await unaryCall(scheduler, Scheduler.method.listHosts, { type: SEED }, options)
  return { hosts: message.hosts, remoteAddress }
}

/** Whether the server at `http://IP:PORT` says nothing against being asked. Throws DragonflyError when it says nothing at all. */
export async function serves(server: string, options: CallOptions): Promise<boolean> {
  const { message } = await unaryCall(server, Health.method.check, { service: '' }, options)
  return message.status !== HealthCheckResponse_ServingStatus.NOT_SERVING
}
