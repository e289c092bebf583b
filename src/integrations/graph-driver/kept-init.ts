import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { IntegrationError } from '../errors.ts'

/** What dockerd says to a driver when it starts, in its own words. */
export interface KeptInit {
  readonly Home: string
  readonly Opts: readonly string[]
  readonly UIDMaps: unknown
  readonly GIDMaps: unknown
}

/** Undefined when there is none. Throws 'BAD_OPTION' for a file that is something else. */
export function readKept(path: string): KeptInit | undefined {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  try {
    const kept = JSON.parse(text) as KeptInit
    if (typeof kept.Home === 'string' && Array.isArray(kept.Opts)) return kept
  } catch {
    // told below
  }
  throw new IntegrationError(
    'BAD_OPTION',
    `cannot use ${path}: it is not what this driver wrote; remove it and restart dockerd`,
  )
}

export function writeKept(path: string, kept: KeptInit): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  const temporary = `${path}.${process.pid}.tmp`
  writeFileSync(temporary, `${JSON.stringify(kept)}\n`, { mode: 0o600, flush: true })
  renameSync(temporary, path)
}
