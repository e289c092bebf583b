import type { ImageConfig } from '../src/registry/index.ts'

/** What to run in a root file system, and how it says that it is ready. */
export interface Workload {
  readonly command: readonly string[]
  /** `NAME=value` */
  readonly env: readonly string[]
  readonly directory: string
  /** `http`: it prints `listening on PORT`, and is ready when a request there is answered; `line`: when it prints anything, or ends. */
  readonly ready: 'http' | 'line'
}

const USUAL_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** What an image says that it runs; `command` in its place when it is not empty. Throws when there is nothing to run. */
export function workloadOf(config: ImageConfig, command: readonly string[], ready: Workload['ready']): Workload {
  const of = config.config ?? {}
  const own = [...texts(of['Entrypoint']), ...texts(of['Cmd'])]
  const chosen = command.length > 0 ? command : own
  if (chosen.length === 0)
    throw new Error('the image does not say what it runs; say it: npm run demo -- IMAGE -- COMMAND')
  const env = texts(of['Env'])
  const directory = of['WorkingDir']
  return {
    command: chosen,
    env: env.some((variable) => variable.startsWith('PATH=')) ? env : [USUAL_PATH, ...env],
    directory: typeof directory === 'string' && directory.startsWith('/') ? directory : '/',
    ready,
  }
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((text) => typeof text === 'string') : []
}
