import { sendDatagram } from '../kernel/index.ts'
import type { Log } from './log/index.ts'

let socket: string | undefined

/** Takes the socket of the service manager from the environment, so that no child tells it anything in our name. */
export function takeNotifySocket(): void {
  socket = process.env['NOTIFY_SOCKET']
  delete process.env['NOTIFY_SOCKET']
}

/** Tells the service manager, if there is one, what becomes of us. Source: sd_notify(3). */
export function notifyManager(state: 'READY=1' | 'STOPPING=1', status: string, log: Log): void {
  if (socket === undefined || socket === '') return
  try {
    sendDatagram(socket, Buffer.from(`${state}\nSTATUS=${status}\n`))
  } catch (error) {
    log.warn(`cannot tell the service manager ${state}: ${(error as Error).message}`)
  }
}
