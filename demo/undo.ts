/** What must not be left behind, in the order it came to be. `run` undoes all of it, last first, once, whatever fails on the way. */
export class Undo {
  readonly #steps: Array<{ readonly what: string; readonly undo: () => Promise<void> | void }> = []
  #running: Promise<void> | undefined

  add(what: string, undo: () => Promise<void> | void): void {
    this.#steps.push({ what, undo })
  }

  run(): Promise<void> {
    this.#running ??= this.#unwind()
    return this.#running
  }

  async #unwind(): Promise<void> {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step.undo()
      } catch (cause) {
        // The rest must still be undone; what could not be is said, and is a failure.
        process.exitCode ||= 1
        process.stderr.write(`cleaning up: ${step.what}: ${cause instanceof Error ? cause.message : String(cause)}\n`)
      }
    }
  }
}
