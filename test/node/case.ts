import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { NodeSettings } from './configurations.ts'
import type { Images } from './images.ts'
import { type Programs, TestNode } from './node.ts'
import type { Runtime } from './runtimes.ts'

/** Something that a node must be able to do. */
export interface NodeCase {
  /** For `--only`. */
  readonly name: string
  /** As a sentence. */
  readonly title: string
  /** It is quick, and shows whether anything works at all. */
  readonly isShort?: boolean
  /** Why it cannot be tried in this world, or undefined. */
  whyNot?(world: World): string | undefined
  /** Throws when the node cannot. What it gives is shown beside the result. */
  run(world: World): Promise<string | void>
}

/** Where a case runs. */
export class World implements AsyncDisposable {
  readonly runtime: Runtime
  readonly images: Images
  readonly programs: Programs
  readonly #nodes: TestNode[] = []

  constructor(parts: { readonly runtime: Runtime; readonly images: Images; readonly programs: Programs }) {
    this.runtime = parts.runtime
    this.images = parts.images
    this.programs = parts.programs
  }

  /** The snapshotter is the original's: a compiled program, where ours is a script that starts Node. */
  get isOriginal(): boolean {
    return readFileSync(this.programs.snapshotter).subarray(1, 4).toString() === 'ELF'
  }

  /** The daemon comes back by itself, as ours does. */
  get hasKeeper(): boolean {
    return spawnSync(this.programs.nydusd, ['--help'], { encoding: 'utf8' }).stdout.includes('--no-keeper')
  }

  /** A node that runs until the world ends. */
  async start(settings: NodeSettings): Promise<TestNode> {
    const pause = await this.images.image('pause')
    const node = await TestNode.start({
      ...settings,
      runtime: this.runtime,
      programs: this.programs,
      pauseImage: pause.reference,
      registryHost: this.images.registry.host,
    })
    this.#nodes.push(node)
    return node
  }

  /** What the programs said, of all nodes. */
  logs(): string {
    return this.#nodes.map((node) => node.logs()).join('\n')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const node of this.#nodes) await node[Symbol.asyncDispose]()
  }
}
