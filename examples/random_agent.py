"""The Gymnasium environment, step by step: a random agent for five minutes."""

import gymnasium as gym


def main() -> None:
    """Act at random and add up reward and late requests."""
    env = gym.make("throttllem_env:ThrottLLeM/Serving-v0")
    _, info = env.reset(seed=0)
    env.action_space.seed(0)
    total, steps, over = 0.0, 0, False
    while not over and steps < 300:
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
        total, steps, over = total + float(reward), steps + 1, terminated or truncated
    print(f"{steps} steps, reward {total:.1f}, last step's cost {info['cost']}")


if __name__ == "__main__":
    main()
