import { join } from 'node:path'
import type { Repository } from '../../registry/index.ts'
import type { TestWorld } from '../testing.ts'
import { checkImage, type CheckRequest } from './check-image.ts'

/** Checks a target, with a source or without; gives each finding as `RULE OBJECT: MESSAGE`. */
export async function checkWorld(
  world: TestWorld,
  source: string | Repository | undefined,
  target: string | Repository,
  changes: Partial<CheckRequest> = {},
): Promise<string[]> {
  const findings: string[] = []
  const opened = (name: string | Repository): Repository => (typeof name === 'string' ? world.repository(name) : name)
  const request: CheckRequest = {
    source: source === undefined ? undefined : opened(source),
    target: opened(target),
    targetBlobs: undefined,
    platform: { os: 'linux', architecture: 'amd64' },
    wantsBoth: false,
    outputFolder: join(world.folder, 'output'),
    version: 'v0',
    ...changes,
  }
  const onFinding = ({ rule, object, message }: { rule: string; object: string; message: string }): void =>
    void findings.push(`${rule} ${object}: ${message}`)
  const count = await checkImage(
    request,
    { onRule: () => undefined, onTotal: () => undefined, onRead: () => undefined, onFinding },
    new AbortController().signal,
  )
  if (count !== findings.length) throw new Error(`${count} findings, ${findings.length} were told`)
  return findings
}
