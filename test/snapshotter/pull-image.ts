import assert from 'node:assert/strict'
import { connect as connectHttp2 } from 'node:http2'
import { connect } from 'node:net'

const DEADLINE_MS = 30_000

/** Has containerd pull an image as the kubelet does: a call of CRI's image service. Throws when it does not. */
export async function pullImage(socket: string, image: string): Promise<void> {
  const name = Buffer.from(image)
  const spec = Buffer.concat([Buffer.of(0x0a, name.length), name])
  const message = Buffer.concat([Buffer.of(0x0a, spec.length), spec])
  const head = Buffer.alloc(5)
  head.writeUInt32BE(message.length, 1)
  const session = connectHttp2('http://localhost', { createConnection: () => connect(socket) })
  try {
    const call = session.request({
      ':method': 'POST',
      ':path': '/runtime.v1.ImageService/PullImage',
      'content-type': 'application/grpc',
      te: 'trailers',
    })
    const outcome = new Promise<Record<string, unknown>>((resolve, reject) => {
      call.on('response', (headers) => 'grpc-status' in headers && resolve(headers))
      call.on('trailers', resolve)
      call.on('error', reject)
      call.setTimeout(DEADLINE_MS, () => reject(new Error('PullImage: no answer')))
    })
    call.end(Buffer.concat([head, message]))
    call.resume()
    const { 'grpc-status': status, 'grpc-message': text } = await outcome
    assert.equal(String(status), '0', `PullImage: ${String(text)}`)
  } finally {
    session.destroy()
  }
}
