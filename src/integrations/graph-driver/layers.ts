import { chmodSync, lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { changeOwner } from '../../kernel/index.ts'
import { IntegrationError } from '../errors.ts'
import type { Owner } from './id-map.ts'

/** As overlayfs and people find a layer: its own files, what overlayfs needs beside them, and where it is mounted. */
export interface LayerPlaces {
  readonly directory: string
  readonly diff: string
  readonly work: string
  readonly merged: string
}

/** What the root directory of a new layer is like. */
export interface RootAttributes extends Owner {
  readonly mode: number
}

const MOST_LAYERS = 500
/** Docker's ids are of 64 hex digits, with `-init` behind some; others are harmless as long as no path is in them. */
const ID = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}$/

/**
 * The directories of all layers: `<home>/<id>` with `diff`, `work`, `merged` and the parent's id. They appear and go whole, by renames: what a crash leaves half-made has a name with a dot in front,
 * and goes with the next start.
 */
export class Layers {
  readonly home: string

  constructor(home: string) {
    this.home = home
    mkdirSync(home, { recursive: true, mode: 0o700 })
    for (const name of readdirSync(home))
      if (/^\.(?:new|gone)-/.test(name)) rmSync(join(home, name), { recursive: true, force: true })
  }

  /** Throws 'BAD_OPTION' for an id that is no name of a directory. */
  places(id: string): LayerPlaces {
    if (!ID.test(id))
      throw new IntegrationError(
        'BAD_OPTION',
        `cannot use the layer id ${JSON.stringify(id.slice(0, 100))}: letters, digits, "_", "." and "-" are allowed, not first "." or "-"`,
      )
    const directory = join(this.home, id)
    return {
      directory,
      diff: join(directory, 'diff'),
      work: join(directory, 'work'),
      merged: join(directory, 'merged'),
    }
  }

  exists(id: string): boolean {
    return lstatSync(this.places(id).diff, { throwIfNoEntry: false })?.isDirectory() === true
  }

  /** Throws 'NOT_FOUND'. */
  found(id: string): LayerPlaces {
    const places = this.places(id)
    if (!this.exists(id)) throw new IntegrationError('NOT_FOUND', `layer ${id} does not exist`)
    return places
  }

  create(id: string, parent: string, root: RootAttributes, owner: Owner): void {
    const places = this.places(id)
    if (lstatSync(places.directory, { throwIfNoEntry: false }) !== undefined)
      throw new IntegrationError('FAILED', `layer ${id} exists already`)
    const temporary = join(this.home, `.new-${id}`)
    rmSync(temporary, { recursive: true, force: true })
    mkdirSync(temporary, { mode: 0o710 })
    changeOwner(temporary, owner.uid, owner.gid)
    for (const [name, attributes] of [
      ['diff', root],
      ['work', { ...owner, mode: 0o700 }],
      ['merged', { ...owner, mode: 0o700 }],
    ] as const) {
      mkdirSync(join(temporary, name))
      chmodSync(join(temporary, name), attributes.mode)
      changeOwner(join(temporary, name), attributes.uid, attributes.gid)
    }
    writeFileSync(join(temporary, 'parent'), parent, { flush: true })
    renameSync(temporary, places.directory)
  }

  remove(id: string): void {
    const { directory } = this.places(id)
    const gone = join(this.home, `.gone-${id}-${process.hrtime.bigint()}`)
    try {
      renameSync(directory, gone)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
      throw error
    }
    rmSync(gone, { recursive: true, force: true })
  }

  /** '' for none. */
  parent(id: string): string {
    return readFileSync(join(this.found(id).directory, 'parent'), 'utf8')
  }

  /** A layer and those below it, the topmost first. Throws 'NOT_FOUND' when one is missing. */
  chain(id: string): string[] {
    const chain: string[] = []
    for (let at = id; at !== ''; at = this.parent(at)) {
      chain.push(at)
      if (chain.length > MOST_LAYERS)
        throw new IntegrationError('FAILED', `layer ${id} has more than ${MOST_LAYERS} layers below it`)
    }
    return chain
  }

  all(): string[] {
    return readdirSync(this.home).filter((name) => ID.test(name) && this.exists(name))
  }
}
