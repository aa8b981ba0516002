from modbot.cli.main import run

if __name__ == "__main__":
    run("tag")
