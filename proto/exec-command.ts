/** A command to be run in a container, as Docker's POST /containers/{id}/exec has it: what managers pass on and agents run. */
export interface ExecCommand {
  readonly command: readonly string[];
  /** NAME=VALUE. */
  readonly env: readonly string[];
  readonly user: string;
  readonly workingDir: string;
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** Empty: the engine's, ctrl-p and ctrl-q. */
  readonly detachKeys: string;
  readonly privileged: boolean;
}
