// What a user's Node program does, with the official client; prints what it saw as one JSON object.
// The member `script` tells the fake provider what to do; Predawn passes it on like any unknown field.
import OpenAI from "openai";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0, timeout: 20_000 });
const messages = [{ role: "user", content: "hello" }];
const ask = (more = {}, options = {}) => client.chat.completions.create({ model, messages, ...more }, options);

const steps = {
  async chat() {
    const { data, response } = await ask({ script: { text: "good morning" } }).withResponse();
    return { text: data.choices[0].message.content, id: response.headers.get("x-request-id") };
  },

  async stream() {
    const pieces = [];
    let usage = null;
    const stream = await ask({
      script: { pieces: ["good", " ", "mörning ☀"] },
      stream: true,
      stream_options: { include_usage: true },
    });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta.content) pieces.push(chunk.choices[0].delta.content);
      usage = chunk.usage ?? usage;
    }
    return { pieces, counted: usage?.completion_tokens > 0 };
  },

  async tool() {
    const tools = [{ type: "function", function: { name: "lookup", parameters: { type: "object", properties: {} } } }];
    const script = { tool_calls: [{ name: "lookup", arguments: { city: "Paris" } }] };
    const whole = await ask({ script, tools });
    const streamed = await client.chat.completions.stream({ model, messages, tools, script }).finalChatCompletion();
    return [whole, streamed].map((answer) => {
      const [call] = answer.choices[0].message.tool_calls;
      return { name: call.function.name, arguments: JSON.parse(call.function.arguments), why: answer.choices[0].finish_reason };
    });
  },

  async refusal() {
    try {
      await ask({ script: "status=429, retry-after=7" });
    } catch (error) {
      const retryAfter = error.headers.get("retry-after");
      return { kind: error.constructor.name, status: error.status, retryAfter, id: Boolean(error.requestID) };
    }
  },

  async unknownModel() {
    try {
      await ask({ model: "nobody" });
    } catch (error) {
      return { kind: error.constructor.name, code: error.code };
    }
  },

  async cutOff() {
    try {
      for await (const _ of await ask({ script: "die_mid_event, chunks=8", stream: true }));
      return { kind: "nothing" };
    } catch (error) {
      return { kind: error.constructor.name, says: error.message };
    }
  },

  async abort() {
    const stream = await ask({ script: { chunks: 400, interval_ms: 20 }, stream: true });
    let seen = 0;
    for await (const _ of stream) if (++seen === 3) break;
    return { seen, aborted: stream.controller.signal.aborted };
  },

  async models() {
    const names = [];
    for await (const entry of client.models.list()) names.push(entry.id);
    return names;
  },

  async embedding() {
    const answer = await client.embeddings.create({ model, input: "dawn" });
    return { numbers: answer.data[0].embedding.every((value) => typeof value === "number") };
  },
};

const seen = {};
for (const [name, step] of Object.entries(steps)) seen[name] = await step();
console.log(JSON.stringify(seen));
