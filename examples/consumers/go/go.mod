module example.org/mrcon-consumer

go 1.24

require (
	github.com/klauspost/compress v1.18.0
	github.com/rabbitmq/amqp091-go v1.10.0
	go.mongodb.org/mongo-driver/v2 v2.8.0
)
