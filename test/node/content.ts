import { NAMESPACE, type TestNode } from './node.ts'

const UNITS = new Map([
  ['B', 1],
  ['kB', 1e3],
  ['KiB', 2 ** 10],
  ['MB', 1e6],
  ['MiB', 2 ** 20],
])

/** Bytes of blobs that containerd has: what pulls have fetched. */
export async function storedBytes(node: TestNode, namespace = NAMESPACE): Promise<number> {
  const lines = (await node.ctrOf(namespace, 'content', 'ls')).trim().split('\n').slice(1)
  return lines.reduce((sum, line) => {
    const [, amount, unit = ''] = line.match(/^\S+\s+([\d.]+)\s?(\w+)/) ?? []
    return sum + Number(amount) * (UNITS.get(unit) ?? Number.NaN)
  }, 0)
}
