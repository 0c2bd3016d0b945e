// The process that runs onnxruntime-web (WebAssembly) under Node: node web.mjs JOB. See worker.py for the job.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const folder = process.argv[2];
const job = JSON.parse(readFileSync(join(folder, "job.json"), "utf-8"));
const KINDS = {
  float32: Float32Array, float64: Float64Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array,
  uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array,
};

function readArrays(ort, described) {
  const found = {};
  for (const [name, entry] of Object.entries(described)) {
    const bytes = readFileSync(join(folder, entry.file));
    const start = bytes.byteOffset;
    const data = new KINDS[entry.dtype](bytes.buffer.slice(start, start + bytes.byteLength));
    found[name] = new ort.Tensor(entry.dtype, data, entry.shape);
  }
  return found;
}

function writeArrays(stem, outputs) {
  const found = {};
  Object.entries(outputs).forEach(([name, tensor], number) => {
    const file = `${stem}.${number}.bin`;
    const { buffer, byteOffset, byteLength } = tensor.data;
    writeFileSync(join(folder, file), new Uint8Array(buffer, byteOffset, byteLength));
    found[name] = { file, dtype: tensor.type, shape: tensor.dims };
  });
  return found;
}

async function timeInTurns(sessions, feeds) {
  const found = sessions.map(() => []);
  for (let turn = 0; turn < 2; turn++) for (const session of sessions) await session.run(feeds);
  const end = performance.now() + job.seconds * 1e3;
  for (let turn = 0; turn < job.rounds && (turn < 5 || performance.now() < end); turn++) {
    const order = [...sessions.keys()];
    for (const number of turn % 2 ? order : order.reverse()) {
      const start = performance.now();
      await sessions[number].run(feeds);
      found[number].push(performance.now() - start);
    }
  }
  return found;
}

async function answer() {
  let ort;
  try {
    ort = await import("onnxruntime-web");
  } catch (error) {
    return { missing: error.code === "ERR_MODULE_NOT_FOUND" ? "" : error.message };
  }
  const said = { version: ort.env.versions.web };
  ort.env.wasm.numThreads = job.threads;
  ort.env.logLevel = "fatal";
  try {
    const samples = job.samples.map((described) => readArrays(ort, described));
    const sessions = [];
    for (const path of job.models) sessions.push(await ort.InferenceSession.create(path, { executionProviders: ["wasm"] }));
    if (job.action === "time") said.milliseconds = await timeInTurns(sessions, samples[0]);
    else {
      said.outputs = [];
      for (const [n, feeds] of samples.entries()) said.outputs.push(writeArrays(`out${n}`, await sessions[0].run(feeds)));
    }
  } catch (error) {
    said.refused = String(error.message ?? error).split("\n")[0];
  }
  return said;
}

writeFileSync(join(folder, "result.json"), JSON.stringify(await answer()));
process.exit(0); // its threads would keep the process alive
