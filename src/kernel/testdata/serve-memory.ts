/** A thread that serves a file system of three files from memory: `hello` at once, `late` through the main thread, `broken` by throwing. */
import { parentPort, workerData } from 'node:worker_threads'
import { ANSWER_LATER, ERRNO, FuseAttributes, FuseControl, type FuseHandler, OPCODE, serveFuse, UNCHANGING } from '../index.ts'

const { fd, control, worker } = workerData as { fd: number; control: Int32Array<SharedArrayBuffer>; worker: number }
const NAMES = ['', '', 'hello', 'late', 'broken', 'é'.repeat(100)]
const content = Buffer.alloc(300_000, 'abcdefg')

function attributes(node: number): FuseAttributes {
  const of = new FuseAttributes()
  of.ino = node
  of.inoTop = 3
  of.mode = node === 1 ? 0o040755 : 0o100644
  of.size = node === 1 ? 0 : content.length
  of.mtime = -5
  of.mtimeNsec = 17
  of.nlink = 1
  return of
}

const handler: FuseHandler = (request, reply) => {
  switch (request.opcode) {
    case OPCODE.LOOKUP: {
      const node = NAMES.indexOf(Buffer.from(request.name()).toString())
      return node < 2 ? reply.noEntry() : reply.entry(attributes(node))
    }
    case OPCODE.GETATTR:
      return reply.attributes(attributes(request.node))
    case OPCODE.READDIR:
    case OPCODE.READDIRPLUS: {
      const isPlus = request.opcode === OPCODE.READDIRPLUS
      reply.startList(request.count)
      for (let node = request.offset + 2; node < NAMES.length; node++) {
        const name = Buffer.from(NAMES[node] ?? '')
        if (!reply.fits(name.length, isPlus)) break
        reply.add(name, node, 3, 8, node - 1, isPlus, attributes(node))
      }
      return reply.endList()
    }
    case OPCODE.READ: {
      if (request.node === 4) throw new Error('broken on purpose')
      const bytes = content.subarray(request.offset, request.offset + request.count)
      if (request.node === 3) {
        parentPort?.postMessage({ late: { low: request.uniqueLow, high: request.uniqueHigh, bytes: Uint8Array.from(bytes) } })
        return ANSWER_LATER
      }
      return reply.data(bytes)
    }
    case OPCODE.STATFS:
      return reply.statfs(4, 512)
    case OPCODE.GETXATTR: {
      if (Buffer.from(request.xattrName()).toString() !== 'user.a') return -ERRNO.ENODATA
      return request.xattrCount === 0 ? reply.size(3) : reply.data(Buffer.from('xyz'))
    }
    default:
      return -ERRNO.ENOSYS
  }
}

const end = serveFuse({
  fd,
  control: new FuseControl(control),
  worker,
  handler,
  wishes: UNCHANGING,
  onForget: () => undefined,
  onInit: (facts) => parentPort?.postMessage({ init: facts }),
  onError: (error) => parentPort?.postMessage({ error: String(error) }),
})
parentPort?.postMessage({ end })
